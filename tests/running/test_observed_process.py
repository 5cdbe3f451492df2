"""A measurement in a child process: its result, and outcomes that become exceptions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import Artifact, BuildSpec, Device, Shape, Unsupported
from backends.null_.null_options import NullOptions
from suites.building.result import BuildingResult
from suites.building.suite import BuildingQuestion, Variant
from suites.limits.suite import LimitsQuestion, LoadClient, LoadPlan
from suites.measuring.clock import Effort
from suites.running.job import MeasureJob
from suites.running.null_inputs import null_batches
from suites.running.observed_process import measure_behind

SHAPE = Shape(1, 16)


@pytest.fixture
def job(tmp_path: Path) -> MeasureJob:
    spec = BuildSpec("fp32", Device(), (SHAPE,), False, tmp_path, NullOptions())
    inputs = null_batches(tmp_path, (SHAPE,))
    question = BuildingQuestion((Variant("first", "", (SHAPE,)),))
    artifact = Artifact(inputs.path, inputs.sha256)
    return MeasureJob("building", "null", spec, artifact, inputs.path, Effort(0.02, 0.02, 2, 10, 0.1), question)


def test_the_result_of_the_child_is_returned(job: MeasureJob) -> None:
    result = measure_behind(job, job.question, ())
    assert isinstance(result, BuildingResult)
    (build,) = result.builds
    assert build.engine is not None
    assert build.engine.cosine == pytest.approx(1.0)


def test_a_refusal_of_the_child_is_raised_as_it_is(job: MeasureJob) -> None:
    client = LoadClient(1, 0.5, socket="/nowhere")
    question = LimitsQuestion("mps", (1.0,), loads=LoadPlan(0, 1, (0.5,)), client=client)
    with pytest.raises(Unsupported, match=r"^the null backend has a simulated GPU only if null.gpu_ms is above 0"):
        measure_behind(replace(job, suite="limits"), question, ())


def test_another_error_of_the_child_has_its_reason(job: MeasureJob) -> None:
    failing = replace(job, spec=replace(job.spec, options=NullOptions(), shapes=(Shape(3, 3),)))
    question = BuildingQuestion((Variant("first", "", (Shape(3, 3),)),))
    with pytest.raises(RuntimeError, match=r"the step in a child process failed: KeyError.*reference"):
        measure_behind(failing, question, ())
