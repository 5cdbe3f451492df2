"""The command deploy: repositories of measured cells for both servers, rules of batches, and refusals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import in_process
import numpy as np
import pytest
from conftest import ROOT
from word_models import word_model

from backends.cache import ArtifactCache
from backends.served_model.running_model import RunningModel
from backends.served_model.served_facts import ServedFacts
from backends.served_model.served_texts import tokenizer_of
from suites import deploy
from suites.cli import local_settings
from suites.deploying.batching_rules import DEFAULT_DELAY_US, as_latency, rules_for
from suites.deploying.write_repository import chosen_server
from suites.records.record import Record, read_record, write_record
from suites.schema.refusals import Refused

MEASURING = ("batch=[1,4]", "sequence=[16]", "repeats=1", "suite.seconds=0.01", "suite.warm_up_s=0.01",
             "suite.min_samples=2", "suite.minimum_cosine=0", "lengths=stsb")  # fmt: skip
TEXTS = ["the cat sat on a mat", "a red dog ran to the sea"]
MakeRecord = Callable[..., Record]
Deploy = Callable[..., int]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return tiny checkpoints: a sentence encoder and a classifier."""
    base = tmp_path_factory.mktemp("checkpoints")
    embedding = word_model(base / "embedding")
    (embedding / "1_Pooling").mkdir()
    (embedding / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}', encoding="utf-8")
    labels = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    label = word_model(base / "label", "roberta", "classification", pad_token_id=0, **labels)
    return {"embedding": embedding, "label": label}


@pytest.fixture(scope="module")
def cells(
    checkpoints: dict[str, Path], shared_cache: ArtifactCache, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Return records by name: those of the sentence encoder by backend and suite, and `label` of the classifier."""
    results = tmp_path_factory.mktemp("cells")
    runs = {
        "ort": ["backend=ort"],
        "torch_eager": ["backend=torch_eager"],
        "serving": ["suite=serving", "backend=ort", "serving.wait_ms=2.5", "serving.workers=2", "serving.loads=[50]",
                    "serving.most_requests=3", "serving.pad_to=built", "serving.queue=77"],
        "label": ["backend=ort"],
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("suites.running.stages.call", in_process.stage)
        for name, words in runs.items():
            folder = checkpoints["label" if name == "label" else "embedding"]
            common = [f"model.path={folder}", "device=cpu", f"results={results / name}", f"cache={shared_cache.root}"]
            done = in_process.command_line([*words, *common, *MEASURING], ROOT, {})
            assert done.returncode == 0, done.stderr + done.stdout
    return {name: next((results / name).glob("*/records/*/*.json")) for name in runs}


@pytest.fixture
def run_deploy(
    shared_cache: ArtifactCache, checkpoints: dict[str, Path], in_process_stages: None, monkeypatch: pytest.MonkeyPatch
) -> Deploy:
    """Run the command in this process with the shared cache and the path of a tiny model."""
    monkeypatch.setattr(local_settings, "settings_file", lambda: None)

    def run(record: object, target: Path, *arguments: str, model: str = "embedding") -> int:
        words = [f"cache={shared_cache.root}", f"model.path={checkpoints[model]}", "--name", "served"]
        return deploy.main([str(record), str(target), *words, *arguments])

    return run


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the only line on standard error without those of started stages. It must be a refusal."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("started: ")]
    assert line.startswith("refused: ")
    return line


def opened(version: Path, monkeypatch: pytest.MonkeyPatch) -> RunningModel:
    """Open a model as model.py does."""
    monkeypatch.setattr(RunningModel, "_warm_up", lambda self: None)
    return RunningModel.open(version)


@pytest.mark.parametrize("name", ["ort", "torch_eager", "serving"])
def test_texts_become_the_embeddings_of_transformers(
    name: str, cells: dict[str, Path], checkpoints: dict[str, Path], run_deploy: Deploy, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import torch
    from transformers import AutoModel, AutoTokenizer

    assert run_deploy(cells[name], tmp_path / "repository") == 0
    folder = tmp_path / "repository" / "served"
    version = folder / "1"
    for needed in ("model.py", "served.json", "tokenizer.json", "code/0/backends/base.py"):
        assert (version / needed).is_file(), needed
    assert not list(folder.rglob("__pycache__"))
    assert not ServedFacts.read(version).artifact.path.is_absolute()
    assert ServedFacts.read(version).uncounted == -1
    model = opened(version, monkeypatch)
    answers = model.answers(tokenizer_of(version, model.facts)(TEXTS, []))
    tokenizer, encoder = (kind.from_pretrained(checkpoints["embedding"]) for kind in (AutoTokenizer, AutoModel))
    with torch.inference_mode():
        expected = [
            encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy() for text in TEXTS
        ]
    for answer, vector in zip(answers, expected, strict=True):
        assert not isinstance(answer, str), answer
        assert answer == pytest.approx(vector / np.linalg.norm(vector), abs=1e-5)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["cell"] == read_record(cells[name]).cell.id
    for file, entry in manifest["files"].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == entry["sha256"], file


def test_a_classifier_answers_with_its_label(
    cells: dict[str, Path], run_deploy: Deploy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_deploy(cells["label"], tmp_path, model="label") == 0
    assert ServedFacts.read(tmp_path / "served" / "1").uncounted == 0
    model = opened(tmp_path / "served" / "1", monkeypatch)
    assert model.facts.labels == ("no", "yes")
    assert 'name: "label"\n  data_type: TYPE_STRING' in (tmp_path / "served" / "config.pbtxt").read_text(
        encoding="utf-8"
    )


def test_the_file_itself_for_the_server_of_the_container(
    cells: dict[str, Path], run_deploy: Deploy, tmp_path: Path
) -> None:
    assert (
        run_deploy(cells["ort"], tmp_path, "--server", "container", "--instances", "2", "--max-queue-delay-us", "300")
        == 0
    )
    folder = tmp_path / "served"
    config = (folder / "config.pbtxt").read_text(encoding="utf-8")
    assert config.startswith('name: "served"\nplatform: "onnxruntime_onnx"\nbackend: "onnxruntime"\n')
    assert "max_queue_delay_microseconds: 300" in config
    assert "count: 2" in config
    assert "dims: 64" in config
    for file in ("1/model.onnx", "1/verify.py", "warmup/input_ids-4x16"):
        assert (folder / file).is_file(), file
    pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient[grpc] is not installed")
    from google.protobuf import text_format

    message = text_format.Parse(config, pb2.ModelConfig())
    assert [item.name for item in message.model_warmup] == ["1x16", "4x16"]
    assert [tuple(item.dims) for item in message.output] == [(64,)]


def test_rules_of_a_serving_record(
    cells: dict[str, Path], run_deploy: Deploy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_deploy(cells["serving"], tmp_path) == 0
    shown = capsys.readouterr().out
    assert "batches of up to 3, wait 2,500 us (as in the record " in shown
    assert "2 instances" in shown
    config = (tmp_path / "served" / "config.pbtxt").read_text(encoding="utf-8")
    for line in ("max_batch_size: 3", "max_queue_size: 77", "max_queue_delay_microseconds: 2500", "count: 2"):
        assert line in config
    assert ServedFacts.read(tmp_path / "served" / "1").pads_to_built


def test_the_rules_of_the_best_serving_record_are_found(cells: dict[str, Path], tmp_path: Path) -> None:
    latency, serving = read_record(cells["ort"]), read_record(cells["serving"])
    assert rules_for(latency, tmp_path).delay_us == DEFAULT_DELAY_US
    faster = replace(serving.cell, options={**serving.cell.options, "wait_ms": 7.0})
    other = replace(serving.cell, model_version="x", options={**serving.cell.options, "wait_ms": 9.0})
    better = json.loads(json.dumps(serving.to_json()["scores"]))
    better["highest"] = [{"bound_ms": 5.0, "percentile": 99.0, "load": 10.0, "above": None, "tried": 1}]
    bounded = Record.from_json({**serving.to_json(), "cell": faster.to_json(), "scores": better, "schema": 1})
    for record in (serving, bounded, replace(serving, cell=other)):
        write_record(tmp_path, record)
    assert rules_for(latency, tmp_path).delay_us == 7000
    assert rules_for(latency, tmp_path).source == faster.id
    # Times do not depend on the values of weights.
    better["highest"][0]["load"] = 20.0
    random = replace(other, weights="random (seed 0)", options={**other.options, "wait_ms": 8.0})
    write_record(
        tmp_path, Record.from_json({**bounded.to_json(), "cell": random.to_json(), "scores": better, "schema": 1})
    )
    assert rules_for(latency, tmp_path).delay_us == 8000


def test_a_serving_cell_loses_its_loads_only(cells: dict[str, Path]) -> None:
    latency, serving = read_record(cells["ort"]), read_record(cells["serving"])
    assert as_latency(latency) is latency
    changed = as_latency(serving).cell
    assert changed.suite == "latency"
    assert "most_requests" not in changed.options
    assert changed.options == {name: value for name, value in latency.cell.options.items() if name in changed.options}


@pytest.mark.parametrize(
    ("changes", "requested", "chosen"),
    [
        ({"backend": "ort", "device": "cpu"}, "auto", "python"),
        ({"backend": "ort", "device": "cuda"}, "auto", "container"),
        ({"backend": "trt", "device": "cuda"}, "auto", "container"),
        ({"backend": "trt_plugin", "device": "cuda"}, "auto", "python"),
        ({"backend": "torch_packed", "device": "cuda"}, "auto", "python"),
        ({"backend": "trt", "device": "cuda"}, "python", "python"),
        ({"backend": "openvino", "device": "cpu"}, "container", "container"),
        ({"backend": "torch_eager"}, "container", "Triton cannot run a model of backend=torch_eager itself"),
        ({"backend": "trt_plugin"}, "container", "Triton cannot run a model of backend=trt_plugin itself"),
        ({"backend": "null"}, "auto", "backend=null has no model to serve"),
        ({"suite": "layers"}, "auto", "the record is of suite=layers"),
        ({"weights": "random"}, "auto", "the model has random weights"),
        ({"outcome": "failed", "reason": "why"}, "auto", "the record has the outcome failed: why"),
    ],
)  # fmt: skip
def test_the_server_of_a_record(
    changes: dict[str, object], requested: str, chosen: str, cells: dict[str, Path]
) -> None:
    record = read_record(cells["ort"])
    own = {name: changes[name] for name in ("outcome", "reason") if name in changes}
    cell = replace(record.cell, **{name: value for name, value in changes.items() if name not in own})  # type: ignore[arg-type]
    changed = replace(record, cell=cell, **own)  # type: ignore[arg-type]
    if chosen in ("python", "container"):
        assert chosen_server(changed, requested) == chosen
    else:
        with pytest.raises(Refused, match=chosen):
            chosen_server(changed, requested)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--instances", "0"], "--instances=0"),
        (["--max-queue-delay-us", "-1"], "--max-queue-delay-us=-1"),
        (["--max-queue-delay-us", "x"], "--max-queue-delay-us x must be a whole number"),
        (["--name", "a/b"], "--name a/b must have letters, digits, points, underscores and hyphens only"),
        (["--server", "vllm"], "invalid choice: 'vllm'"),
        (["fp16"], "'fp16' is not of the form key=value"),
        (["precision=int8"], "the record has precision=fp32, but this command has precision=int8"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments: list[str], says: str, cells: dict[str, Path], run_deploy: Deploy, tmp_path: Path,
                       capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    assert run_deploy(cells["ort"], tmp_path / "repository", *arguments) == 2
    assert says in refused(capsys)
    assert not (tmp_path / "repository" / "served").exists()


def test_a_model_is_replaced_only_by_force(
    cells: dict[str, Path], run_deploy: Deploy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "config.pbtxt").write_text("mine", encoding="utf-8")
    assert run_deploy(cells["ort"], tmp_path) == 2
    assert f"REPOSITORY/MODEL={tmp_path / 'served'} is not empty" in refused(capsys)
    assert run_deploy(cells["ort"], tmp_path, "--force") == 0
    assert run_deploy(cells["ort"], tmp_path, "--force", "--server", "container") == 0
    # Nothing of the earlier model is left.
    assert not (tmp_path / "served" / "1" / "model.py").exists()
