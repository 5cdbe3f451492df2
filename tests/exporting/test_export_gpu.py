"""Export of a plan and of an FP16 ONNX file on a GPU; verify.py runs in the interpreter of the backend."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PYTHON_WITH_TENSORRT, Cli
from word_models import word_model

from suites import export
from suites.measuring.machine import gpus

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU is visible")]
MEASURING = ("suite.seconds=0.05", "suite.warm_up_s=0.05", "suite.min_samples=2", "suite.minimum_cosine=0")


@pytest.mark.parametrize(
    ("words", "shapes"),
    [
        (["backend=ort"], "batch=[4]"),
        (["backend=trt"], "batch=[1,4]"),
        (["backend=trt", "profiles=dynamic"], "batch=[4]"),
        (["backend=trt_plugin", "layout=packed"], "batch=[2]"),
        (["backend=trt_plugin", "layout=fixed"], "batch=[4]"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else value,
)
def test_an_exported_fp16_model_is_verified_with_its_runtime(
    words: list[str], shapes: str, cli: Cli, tmp_path: Path
) -> None:
    trt = words[0] != "backend=ort"
    if trt and not PYTHON_WITH_TENSORRT:
        pytest.skip("no interpreter with TensorRT")
    model = word_model(tmp_path / "model", num_attention_heads=1)  # heads of 64, which plugins need
    python = [f"interpreter.trt={PYTHON_WITH_TENSORRT}"] if trt else []
    done = cli(*words, shapes, "precision=fp16", "sequence=[32]", f"model.path={model}", *python, *MEASURING)
    assert done.returncode == 0, done.stderr + done.stdout
    (record,) = (tmp_path / "results").glob("*/records/latency/*.json")
    folder = tmp_path / "served"
    own = [f"model.path={model}", f"cache={tmp_path / 'cache'}", *python]
    assert export.main([str(record), str(folder), *own]) == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["exported"]["made_from_the_measured_file"] is True
    assert manifest["exported"]["ran_the_model"] is True
    runtime = PYTHON_WITH_TENSORRT if trt else sys.executable
    checked = subprocess.run([runtime, str(folder / "verify.py")], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr + checked.stdout
    assert all(float(row.split()[3]) > 0.99 for row in checked.stdout.splitlines()[1:4]), checked.stdout
