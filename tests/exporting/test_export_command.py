"""Export of measured cells: the files of the folder, verify.py with the runtime alone, and refusals."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import in_process
import numpy as np
import pytest
from conftest import ROOT, json_of, replaced, without_rights
from word_models import word_model

from backends.cache import ArtifactCache
from backends.onnx_.exported_graph import LARGEST_LOSS
from suites import export
from suites.cli import local_settings
from suites.exporting.find_record import check_exportable
from suites.exporting.target_folder import target_folder
from suites.records.record import Record, read_record, write_record
from suites.schema.refusals import Refused

ONE_SHAPE = ("batch=[2]", "sequence=[16]", "repeats=1", "suite.seconds=0.01", "suite.warm_up_s=0.01",
             "suite.min_samples=2", "suite.minimum_cosine=0")  # fmt: skip

BLOCKED = """
import runpy, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
runpy.run_path({script}, run_name="__main__")
"""
"""Program that runs a script in which the libraries of the project cannot be imported."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny checkpoint with a tokenizer and a pooling. Its vocabulary is large enough for INT8 rows."""
    folder = word_model(tmp_path_factory.mktemp("exported") / "model", vocab_size=20_000)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return folder


@pytest.fixture(scope="module")
def cells(checkpoint: Path, shared_cache: ArtifactCache, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the record of ONNX Runtime on the CPU by precision, those of OpenVINO as openvino-PRECISION, and `torch`,
    the record of torch_eager.

    The output in FP32 is the embedding, and that in INT8 the hidden states.
    """
    results = tmp_path_factory.mktemp("cells")
    common = [f"model.path={checkpoint}", "device=cpu", f"results={results}", f"cache={shared_cache.root}", *ONE_SHAPE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("suites.running.stages.call", in_process.stage)
        for words in (
            ["backend=ort", "precision=fp32"],
            ["backend=ort", "precision=int8", "quantization.samples=8", "output=hidden"],
            ["backend=openvino", "precision=fp32"],
            ["backend=openvino", "precision=int8", "quantization.samples=8", "output=hidden"],
            ["backend=torch_eager"],
        ):
            done = in_process.command_line([*words, *common], ROOT, {})
            assert done.returncode == 0, done.stderr + done.stdout
    records = {path: read_record(path) for path in results.glob("*/records/latency/*.json")}
    names = {"ort": "", "openvino": "openvino-"}
    return {
        "torch" if record.cell.backend not in names else names[record.cell.backend] + record.cell.precision: path
        for path, record in records.items()
    }


SERVED = ("fp32", "int8", "openvino-fp32", "openvino-int8")


Export = Callable[..., int]


@pytest.fixture
def run_export(
    shared_cache: ArtifactCache, checkpoint: Path, in_process_stages: None, monkeypatch: pytest.MonkeyPatch
) -> Export:
    """Run the command in this process with the shared cache and the path of the tiny model."""
    monkeypatch.setattr(local_settings, "settings_file", lambda: None)

    def run(record: object, target: Path, *arguments: str, model: Path | None = checkpoint) -> int:
        words = [f"cache={shared_cache.root}", *([f"model.path={model}"] if model else [])]
        return export.main([str(record), str(target), *words, *arguments])

    return run


@pytest.fixture(scope="module")
def served(
    cells: dict[str, Path], shared_cache: ArtifactCache, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Return an exported folder by the name in `cells`. Tests do not change it."""
    folders = {name: tmp_path_factory.mktemp("served") / name for name in SERVED}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("suites.running.stages.call", in_process.stage)
        patch.setattr(local_settings, "settings_file", lambda: None)
        for precision, folder in folders.items():
            words = [f"cache={shared_cache.root}", f"model.path={checkpoint}"]
            assert export.main([str(cells[precision]), str(folder), *words]) == 0
    return folders


def verify(folder: Path, *other: str) -> subprocess.CompletedProcess[str]:
    """Run verify.py in isolated mode. Libraries that it does not need are blocked, also the `other` ones."""
    blocked = ["torch", "transformers", "tokenizers", "safetensors", "onnx", "scipy", "hydra", "suites", "backends"]
    blocked += other
    program = BLOCKED.format(blocked=set(blocked), script=repr(str(folder / "verify.py")))
    return subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, cwd=folder.parent)


def manifest_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text()))


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the last line on standard error. It must be a refusal, and the only one."""
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("started: ")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("refused: "), lines
    return lines[0]


@pytest.mark.parametrize("precision", SERVED)
def test_a_folder_is_verified_with_its_runtime_and_numpy_alone(precision: str, served: dict[str, Path]) -> None:
    done = verify(served[precision], "onnxruntime" if precision.startswith("openvino") else "openvino")
    assert done.returncode == 0, done.stderr + done.stdout
    header, *rows, last = done.stdout.splitlines()
    assert header.split("  ")[0] == "sentence"
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert all(float(row.split()[2]) >= 0.9999 for row in rows)
    assert last == "the model agrees with the expected outputs"
    assert not (served[precision] / "__pycache__").exists()


def test_the_blocked_libraries_are_really_blocked(tmp_path: Path) -> None:
    (tmp_path / "verify.py").write_text("import torch")
    done = verify(tmp_path)
    assert done.returncode == 1
    assert "torch is blocked" in done.stderr


def test_the_manifest_names_the_origin_and_the_digest_of_every_file(
    served: dict[str, Path], cells: dict[str, Path]
) -> None:
    folder, record = served["fp32"], read_record(cells["fp32"])
    manifest = manifest_of(folder)
    assert manifest["cell"] == record.cell.id
    assert manifest["record"]["machine"] == record.environment.machine == manifest["exported"]["machine"]
    assert manifest["record"]["command"] == list(record.command)
    assert manifest["exported"]["made_from_the_measured_file"] is True
    assert manifest["runtime"]["version"] == record.environment.versions[manifest["runtime"]["package"]]
    assert manifest["pooling"] == {
        "mode": "mean", "normalized": True, "lower_case": False, "longest": 0, "source": "1_Pooling/config.json",
    }  # fmt: skip
    assert [(tensor["name"], tensor["dtype"], tensor["shape"]) for tensor in manifest["inputs"]] == [
        (name, "int32", ["batch", "sequence"]) for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == files - {"manifest.json"}
    assert {"model.onnx", "tokenizer.json", "1_Pooling/config.json", "verify.py", "README.md"} <= files
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_the_exported_fp32_file_is_the_measured_file(served: dict[str, Path], cells: dict[str, Path]) -> None:
    built = read_record(cells["fp32"]).artifacts.built_sha256
    assert manifest_of(served["fp32"])["files"]["model.onnx"]["sha256"] == built


def test_an_int8_file_has_no_large_fp32_weight(served: dict[str, Path]) -> None:
    import onnx

    model = onnx.load(str(served["int8"] / "model.onnx"))
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.data_type == 1}
    # Positions stay in FP32: 512 x 64. Weights of products have 64 x 128 values.
    assert {size for size in sizes.values() if size >= 64 * 64} <= {512 * 64, 20_000}
    notes = manifest_of(served["int8"])["notes"]
    assert (notes["int8_weights"], notes["int8_embeddings"]) == (12, 1)


def test_an_openvino_folder_has_the_intermediate_representation(served: dict[str, Path]) -> None:
    import openvino

    sizes = {}
    for precision in ("fp32", "int8"):
        folder = served[f"openvino-{precision}"]
        manifest = manifest_of(folder)
        assert manifest["settings"]["file"] == "model.xml"
        assert {"model.xml", "model.bin"} <= set(manifest["files"])
        assert not list(folder.glob("*.onnx*"))
        assert manifest["runtime"]["package"] == "openvino"
        assert "pip install openvino numpy" in (folder / "README.md").read_text()
        sizes[precision] = manifest["files"]["model.bin"]["bytes"]
        model = openvino.Core().compile_model(str(folder / "model.xml"), "CPU", manifest["settings"]["properties"])
        nodes = [node.get_rt_info() for node in model.get_runtime_model().get_ordered_ops()]
        types = {
            node["runtimePrecision"].astype(str) for node in nodes if node["layerType"].astype(str) == "FullyConnected"
        }
        assert types == {"f32"} if precision == "fp32" else types <= {"i8", "u8"}
    notes = manifest_of(served["openvino-int8"])["notes"]
    cosines = notes["mean_cosine_to_fp32"]
    assert cosines["exported_file"] >= cosines["measured_file"] - LARGEST_LOSS
    assert sizes["int8"] < sizes["fp32"] / 2 if notes["int8_weights"] else sizes["int8"] >= sizes["fp32"]


def test_the_expected_outputs_have_the_ids_of_the_tokenizer(served: dict[str, Path], checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    sentences = manifest_of(served["fp32"])["sentences"]
    ids = AutoTokenizer.from_pretrained(checkpoint)(sentences)["input_ids"]
    for precision, output, tolerance in (("fp32", "embedding", 1e-4), ("int8", "hidden", 0.5)):
        assert manifest_of(served[precision])["output"] == output
        arrays = np.load(served[precision] / "expected.npz")
        assert [arrays[f"sample{number}/ids"].tolist() for number in range(3)] == ids
        for number, row in enumerate(ids):
            expected, reference = arrays[f"sample{number}/expected"], arrays[f"sample{number}/reference"]
            assert expected.shape == reference.shape == (1 if output == "embedding" else len(row), 64)
            np.testing.assert_allclose(expected, reference, atol=tolerance)


@pytest.mark.parametrize("precision", SERVED)
def test_the_code_in_the_readme_gives_the_expected_vector(
    precision: str, served: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(served[precision], tmp_path / "copy"))
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (folder / "serve.py").write_text(f"{code}\nprint(vectors.tolist())\n")
    done = subprocess.run([sys.executable, "serve.py"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = np.load(folder / "expected.npz")["sample0/expected"].mean(0)
    np.testing.assert_allclose(json.loads(done.stdout)[0], expected / np.linalg.norm(expected), atol=1e-5)


def test_verify_notices_a_changed_file_and_changed_outputs(served: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(served["fp32"], tmp_path / "copy"))
    arrays = dict(np.load(folder / "expected.npz"))
    arrays["sample1/expected"] = arrays["sample1/expected"][:, ::-1]
    np.savez(folder / "expected.npz", **arrays)  # type: ignore[arg-type]
    done = verify(folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "expected.npz differs from its digest in manifest.json\n"
    manifest = manifest_of(folder)
    manifest["files"]["expected.npz"]["sha256"] = hashlib.sha256((folder / "expected.npz").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    done = verify(folder)
    assert done.returncode == 1
    assert [row.endswith("below 0.9999") for row in done.stdout.splitlines()[1:4]] == [False, True, False]
    assert done.stdout.splitlines()[-1] == "the model does not agree with the expected outputs"
    (folder / "config.json").unlink()
    assert "config.json is missing" in verify(folder).stderr


def test_verify_says_that_the_runtime_is_missing(served: dict[str, Path]) -> None:
    for name, runtime in (("fp32", "onnxruntime"), ("openvino-fp32", "openvino")):
        program = BLOCKED.format(blocked={runtime}, script=repr(str(served[name] / "verify.py")))
        done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith(f"the model cannot be run: {runtime} is blocked")


def test_a_cell_id_or_its_digits_name_the_record(cells: dict[str, Path], tmp_path: Path, run_export: Export) -> None:
    results, cell_id = cells["fp32"].parents[3], cells["fp32"].stem
    assert run_export(cell_id, tmp_path / "a", "--records", str(results)) == 0
    assert run_export(cell_id.rpartition("-")[2], tmp_path / "b", "--records", str(results)) == 0
    assert manifest_of(tmp_path / "a")["cell"] == manifest_of(tmp_path / "b")["cell"] == cell_id


def test_force_replaces_an_earlier_export_and_keeps_other_files(
    cells: dict[str, Path], tmp_path: Path, run_export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    assert run_export(cells["fp32"], folder) == 2
    assert "is not empty; give a new folder, or add --force" in refused(capsys)
    (folder / "model.onnx.data").write_text("old")
    (folder / "manifest.json").write_text(json.dumps({"files": {"model.onnx.data": {}, "../up": {}, "/etc/x": {}}}))
    (tmp_path / "up").write_text("outside")
    assert run_export(cells["fp32"], folder, "--force") == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert (tmp_path / "up").read_text() == "outside"
    assert not (folder / "model.onnx.data").exists()
    assert verify(folder).returncode == 0
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_refused_export_leaves_no_folder(cells: dict[str, Path], tmp_path: Path, run_export: Export) -> None:
    assert run_export(cells["fp32"], tmp_path / "out", model=tmp_path / "nowhere") == 2
    assert not (tmp_path / "out").exists()


def changed(path: Path, tmp_path: Path, **changes: Any) -> Path:
    """Write a copy of a record with other fields; fields of the cell are given as `cell`."""
    record = read_record(path)
    cell = replace(record.cell, **changes.pop("cell", {}))
    return write_record(tmp_path / "changed", replace(record, cell=cell, **changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"outcome": "failed", "reason": "too hot"}, "the record has the outcome failed: too hot; only a record with"),
        ({"outcome": "unsupported", "reason": "no kernel"}, "the record has the outcome unsupported: no kernel;"),
        ({"cell": {"weights": "random (seed 0)"}}, "has random (seed 0) weights, which are for latency only"),
        (
            {"cell": {"backend": "gone"}},
            "a model of backend=gone cannot be exported; backends with an export: openvino, ort, trt",
        ),
        ({"cell": {"options": {"engines": "per_shape"}}}, "has one plan for each shape; export a record with trt.eng"),
        ({"artifacts": {"weights": {"sha256": "f" * 64}}}, "differ from those of the record"),
        ({"cell": {"options": {"more": 1}}}, "the record has the option more, which this version does not have"),
        (
            {"cell": {"options": {"quantization": {"products": "all"}}}},
            "the record has the option quantization.products",
        ),
        ({"cell": {"options": {"fusion": "on"}}, "artifacts": {}}, ""),
    ],
)
def test_a_record_that_cannot_be_exported_is_refused_with_the_reason(
    changes: dict[str, Any], says: str, cells: dict[str, Path], tmp_path: Path, run_export: Export,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = changed(cells["fp32"], tmp_path, **changes)
    if not says:
        assert run_export(path, tmp_path / "out") == 0
        assert manifest_of(tmp_path / "out")["exported"]["made_from_the_measured_file"] is False
        assert "warning: the file was built again" in capsys.readouterr().err
        return
    assert run_export(path, tmp_path / "out") == 2
    assert says in refused(capsys)
    assert not (tmp_path / "out").exists()


def test_a_torch_record_is_refused_with_the_backends_that_export(
    cells: dict[str, Path], tmp_path: Path, run_export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_export(cells["torch"], tmp_path / "out") == 2
    line = refused(capsys)
    assert (
        "a model of backend=torch_eager cannot be exported; backends with an export: openvino, ort, trt, trt_plugin"
        in line
    )
    assert "serve its folder with transformers" in line


def test_a_record_that_does_not_exist_is_refused(
    cells: dict[str, Path], tmp_path: Path, run_export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    results = cells["fp32"].parents[3]
    assert run_export(tmp_path / "no.json", tmp_path / "out") == 2
    assert "no.json cannot be read: No such file or directory; give the file of a record" in refused(capsys)
    near = cells["fp32"].stem[:-1]
    assert run_export(near, tmp_path / "out", "--records", str(results)) == 2
    assert f"has no record of the cell {near}; did you mean model-ort-" in refused(capsys)
    (tmp_path / "x.json").write_text("[]")
    assert run_export(tmp_path / "x.json", tmp_path / "out") == 2
    assert "x.json is not a record" in refused(capsys)
    other = results / "other" / "records" / "latency"
    other.mkdir(parents=True)
    shutil.copy(cells["fp32"], other)
    assert run_export(cells["fp32"].stem, tmp_path / "out", "--records", str(results)) == 2
    assert "has several records of" in refused(capsys)
    shutil.rmtree(results / "other")


def test_a_model_whose_files_are_gone_is_refused(
    cells: dict[str, Path], tmp_path: Path, run_export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_export(cells["fp32"], tmp_path / "out", model=None) == 2
    assert "does not say where the files of the model 'model' are; add model.path=FOLDER" in refused(capsys)
    assert run_export(cells["fp32"], tmp_path / "out", model=tmp_path / "gone") == 2
    assert "gone has no config.json" in refused(capsys)


def test_other_calibration_texts_are_refused(
    cells: dict[str, Path], tmp_path: Path, run_export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    assert run_export(cells["int8"], tmp_path / "out", f"task.calibration={tmp_path / 'texts.txt'}") == 2
    assert "calibration texts of the record are others" in refused(capsys)
    assert run_export(cells["fp32"], tmp_path / "out", "precision=int8") == 2
    assert "the record has precision=fp32, but this command has precision=int8" in refused(capsys)
    assert run_export(cells["int8"], tmp_path / "out", "quantization.samples=16") == 2
    assert "cannot repeat the option quantization of the record" in refused(capsys)


def test_a_target_that_cannot_be_written_is_refused(
    cells: dict[str, Path], tmp_path: Path, run_export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run_export(cells["fp32"], tmp_path / "file") == 2
    assert "DIR=" in (line := refused(capsys))
    assert "is not a folder" in line
    assert run_export(cells["fp32"], tmp_path / "file" / "below") == 2
    assert "cannot be written (Not a directory)" in refused(capsys)
    with (
        without_rights(),
        pytest.raises(Refused, match=r"DIR=/usr/served cannot be written \(Permission denied\); give another"),
        target_folder("/usr/served", False),
    ):
        pass


def fill_up(target: Path) -> None:
    """Start an export whose disk becomes full."""
    with target_folder(str(target), False) as partial:
        (partial / "model.onnx").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_is_refused_and_the_folder_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(Refused, match=r"cannot be written \(No space left on device\); free space or give another"):
        fill_up(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_record_of_another_suite_is_refused(cells: dict[str, Path]) -> None:
    record = read_record(cells["fp32"])
    with pytest.raises(Refused, match="the record is of suite=layers; export a record of suite=latency, accuracy, swi"):
        check_exportable(replace(record, cell=replace(record.cell, suite="layers")))


def test_words_that_are_no_keys_are_refused(
    cells: dict[str, Path], tmp_path: Path, run_export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_export(cells["fp32"], tmp_path / "out", "fp16") == 2
    assert "'fp16' is not of the form key=value" in refused(capsys)
    assert run_export(cells["fp32"], tmp_path / "out", "bacth=3") == 2
    assert "bacth" in refused(capsys)


@pytest.fixture
def plan_record(
    cells: dict[str, Path], tmp_path: Path, shared_cache: ArtifactCache
) -> Callable[[str], tuple[Path, bytes]]:
    """Return the record of a plan that another GPU built, and its bytes. The cache has the plan."""

    def make(label: str) -> tuple[Path, bytes]:
        content = f"plan {label}".encode()
        artifact = shared_cache.get(
            "engine",
            {"plan": label},
            "model.plan",
            lambda path: path.write_bytes(content) and None,
            {"tensorrt": "8.6.0"},
        )
        options = {"cuda_graph": True, "profiles": "per_shape", "min": [1, 16], "opt": [2, 16], "max": [2, 16]}
        record: Record = read_record(cells["fp32"])
        cell = replace(record.cell, backend="trt", device="cuda", precision="fp16", options=options,
                       release="tensorrt 8.6.0")  # fmt: skip
        environment = {"machine": "other-gpu", "gpu": "Other GPU", "driver": "1", "uuid": "GPU-9",
                       "versions": {"tensorrt": "8.6.0"}}  # fmt: skip
        built = {"sha256": artifact.sha256, "versions": {"tensorrt": "8.6.0"}}
        artifacts = {"weights": json_of(record)["artifacts"]["weights"], "built": built}
        other = replaced(record, cell=cell, environment=environment, artifacts=artifacts)
        return write_record(tmp_path / "plans", other), content

    return make


def test_a_plan_of_another_gpu_is_exported_with_a_warning(
    plan_record: Callable[[str], tuple[Path, bytes]], tmp_path: Path, run_export: Export,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path, content = plan_record("a")
    assert run_export(path, tmp_path / "out") == 0
    error = capsys.readouterr().err
    assert "warning: the plan runs only with tensorrt 8.6.0 on Other GPU\n" in error
    assert "warning: this machine does not have that GPU, so the expected outputs are those of FP32\n" in error
    assert (tmp_path / "out" / "model.plan").read_bytes() == content
    manifest = manifest_of(tmp_path / "out")
    assert manifest["runtime"] == {"package": "tensorrt", "version": "8.6.0"}
    assert manifest["settings"]["built_for"] == "tensorrt 8.6.0 on Other GPU"
    assert manifest["exported"]["ran_the_model"] is False
    assert manifest["profiles"] == [{"min": [2, 16], "opt": [2, 16], "max": [2, 16]}]
    assert [tensor["shape"] for tensor in manifest["inputs"]] == [["2", "16"]] * 3
    arrays = np.load(tmp_path / "out" / "expected.npz")
    assert arrays["run0/input_ids"].shape == (2, 16)
    assert [int(arrays[f"sample{number}/run"]) for number in range(3)] == [0, 0, 1]
    np.testing.assert_array_equal(arrays["sample2/expected"], arrays["sample2/reference"])
    assert "tensorrt==8.6.0 cuda-python numpy" in (tmp_path / "out" / "README.md").read_text()
    done = verify(tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("the model cannot be run: ")


def test_a_plan_that_is_not_in_the_cache_is_refused(
    plan_record: Callable[[str], tuple[Path, bytes]], tmp_path: Path, run_export: Export,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path, _ = plan_record("b")
    record = read_record(path)
    artifacts = {"built": {"sha256": "0" * 64}}
    path = write_record(tmp_path / "lost", replaced(record, artifacts=artifacts))
    assert run_export(path, tmp_path / "out") == 2
    line = refused(capsys)
    assert "the plan of the record is not in cache=" in line
    assert "this machine cannot build it, because it has no Other GPU" in line
