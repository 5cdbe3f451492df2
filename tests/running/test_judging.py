"""Scores of a backend's outputs: order of the stages, scores in the record, and reuse for the next backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import json_of

from backends.base import Artifact, BuildSpec, Device, Shape, Source, SourceForm
from backends.inputs.lengths import Lengths
from backends.json_codec import from_json
from suites import worker
from suites.accuracy.suite import AccuracyQuestion
from suites.asking.request import Request
from suites.measuring.clock import Effort
from suites.measuring.machine import Machine
from suites.records.cell import Cell
from suites.records.parts import Check
from suites.records.record import FAILED, OK, Record, read_record
from suites.running import pipeline
from suites.running.job import Exported, Job, Measured, Probed, Scored, ScoreJob
from suites.running.launch import Answer
from suites.suite import Judging
from suites.tasks import predictions, scoring
from suites.tasks.task_scores import TaskScores

TARGETS = {"pairs": [[0, 3], [1, 4], [2, 5]], "scores": [1.0, 2.0, 4.0]}


def test_fp32_is_scored_once_for_all_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.savez(tmp_path / "inputs.npz", reference=reference)
    np.save(tmp_path / "readouts.npy", reference + np.float32(0.3))
    first_values: list[float] = []
    judge = predictions.predictions

    def counted(kind: str, targets: Any, outputs: Any, *others: Any) -> Any:
        first_values.append(float(outputs[0, 0]))
        return judge(kind, targets, outputs, *others)

    monkeypatch.setattr("suites.tasks.predictions.predictions", counted)
    monkeypatch.setattr(scoring, "predictions", counted)
    inputs = Artifact(tmp_path / "inputs.npz", "one")
    job = ScoreJob("stsb", TARGETS, tmp_path / "readouts.npy", inputs, tmp_path, "model", tmp_path / "cache")
    first, second = worker.score(job), worker.score(job)
    assert first == second
    assert first_values.count(float(reference[0, 0])) == 1
    assert len(first_values) == 3
    worker.score(replace(job, targets={**TARGETS, "scores": [4.0, 2.0, 1.0]}))
    assert first_values.count(float(reference[0, 0])) == 2
    worker.score(replace(job, identity="another model"))
    assert first_values.count(float(reference[0, 0])) == 3


class FakeStages:
    """Stages that return given answers, and record the device lock during each stage in `locks`."""

    def __init__(self, answers: Mapping[str, Answer[Any]]) -> None:
        self.answers, self.lock = answers, ""
        self.locks: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.log_tail = ""

    def run(self, job: Job[Any], python: str) -> Answer[Any]:
        self.locks[job.stage] = self.lock
        return self.answers[job.stage]

    def starting_builder(self, request: Request) -> AbstractContextManager[None]:
        return nullcontext()

    def progress(self, *_: object) -> None: ...


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[pipeline.CellResult, FakeStages]]:
    """Return a function that runs an accuracy request with fake stages. Keywords replace figures of the score stage."""
    cell = {
        "suite": "accuracy", "model": "tiny", "weights": "trained", "model_version": "", "backend": "ort",
        "precision": "fp32", "device": "cpu", "shapes": ((1, 8),), "options": {},
        "lengths": {"task": "stsb", "distribution": "texts", "tokens": "text"},
    }  # fmt: skip
    request = Request(
        suite="accuracy", machine=Machine(Device(), "m", {"uuid": "", "cpu": "c", "cores": 1}), backend="ort",
        interpreter="", main_interpreter="", time_limit=1, minimum_cosine=0.5, until="measure", repeats=1, rerun=False,
        results=tmp_path, cache=tmp_path, source="onnx",
        spec=BuildSpec("fp32", Device(), (Shape(1, 8),), False, tmp_path), model=None, lengths=Lengths(), texts=(),
        seed=0, question=AccuracyQuestion("stsb", (), "", ()), judging=Judging("stsb", {}, 0.01, 0.05),
        effort=Effort(1, 1, 2, 2, 0.1), cell=cell,
    )  # fmt: skip

    def run_request(
        tolerance: float = 0.01, cosine: float = 1.0, targets: tuple[float, ...] = (), **scores: Any
    ) -> tuple[pipeline.CellResult, FakeStages]:
        artifact = Artifact(Path(), "", seconds=1.0)
        check = Check(batch=1, sequence=8, cuda_graph=False, nonfinite=0, cosine=cosine)
        figures = dict.fromkeys(("cosine_min", "cosine_mean", "max_difference", "relative_error"), 0.5)
        figures["reference_value"] = 0.82
        scored = {"nonfinite": 0, "metric": "spearman", "value": 0.8, "difference": -0.02, **figures, **scores}
        results = {
            "probe": Probed(form=SourceForm()),
            "export": Exported(Source(Path(), ""), artifact, (Shape(1, 8),)),
            "build": artifact,
            "measure": Measured(checks=(check,), readouts=tmp_path / "readouts.npy"),
            "score": Scored(from_json(TaskScores, scored)),
        }
        stages = FakeStages({stage: Answer(OK, "", result, "") for stage, result in results.items()})

        @contextmanager
        def holding(*_: object, shared: bool) -> Iterator[None]:
            stages.lock = "shared" if shared else "alone"
            yield
            stages.lock = ""

        monkeypatch.setattr(pipeline, "lock_device", holding)
        judging = replace(request.judging, tolerance=tolerance, targets={"scores": list(targets)})
        return pipeline._run(replace(request, judging=judging), stages), stages  # type: ignore[arg-type]

    return run_request


def test_outputs_are_computed_under_a_shared_lock_and_scored_without_a_lock(
    run: Callable[..., tuple[pipeline.CellResult, FakeStages]],
) -> None:
    ended, stages = run()
    assert stages.locks == {"probe": "", "export": "shared", "build": "shared", "measure": "shared", "score": ""}
    assert ended.record.outcome == OK
    assert json_of(ended.record)["scores"]["value"] == 0.8
    assert ended.record.checks[0].problem == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nonfinite": 3}, "all texts: 3 outputs are NaN or Inf"),
        ({"cosine": 0.2}, "1x8: cosine to the FP32 reference is below 0.5"),
    ],
)
def test_wrong_outputs_fail_and_keep_their_scores(
    changes: dict[str, Any], reason: str, run: Callable[..., tuple[pipeline.CellResult, FakeStages]]
) -> None:
    record: Record = run(**changes)[0].record
    assert (record.outcome, record.reason) == (FAILED, reason)
    assert json_of(record)["scores"]["metric"] == "spearman"


def test_a_reused_record_has_the_requested_tolerance(
    run: Callable[..., tuple[pipeline.CellResult, FakeStages]],
) -> None:
    run(tolerance=0.5)
    ended, stages = run(tolerance=0.001)
    assert ended.reused
    assert list(stages.locks) == ["probe"]
    assert json_of(ended.record)["scores"]["tolerance"] == 0.001
    assert ended.path is not None
    assert json_of(read_record(ended.path))["scores"]["tolerance"] == 0.001
    assert isinstance(ended.record.cell, Cell)


def test_a_record_of_other_targets_is_not_reused(run: Callable[..., tuple[pipeline.CellResult, FakeStages]]) -> None:
    run(targets=(1.0, 2.0))
    assert run(targets=(1.0, 2.0))[0].reused
    assert not run(targets=(2.0, 1.0))[0].reused
