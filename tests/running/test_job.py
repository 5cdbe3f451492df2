"""Jobs and answers: the round trip through JSON, refusals of wrong keys, and the keys that the worker lists."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest

from backends.base import Artifact, BuildSpec, Device, Shape, Source, SourceForm
from backends.compute_share import BuildLimit
from backends.deployment import Deployed, TensorInfo
from backends.inputs.lengths import Lengths
from backends.json_codec import NotThisType, from_json, to_json
from backends.json_part import Part
from backends.model.encoder_sizes import EncoderSizes
from backends.model.pooling import Pooling
from backends.model.reference import ModelReference
from backends.model_output import Output
from backends.null_.null_options import NullOptions
from backends.options import Switch
from backends.ort_.description import OrtOptions
from backends.quantization_options import QuantizationOptions
from suites import worker
from suites.accuracy.suite import AccuracyQuestion
from suites.alignment.result import SizeVariant, Sweep
from suites.alignment.suite import AlignmentQuestion, TimedRun
from suites.building.suite import BuildingQuestion, Variant
from suites.ceilings.suite import CeilingsQuestion
from suites.kernels.suite import KernelsQuestion
from suites.layers.result import Layer, LayersResult
from suites.layers.suite import LayersQuestion
from suites.limits.suite import LimitsQuestion, LoadClient, LoadPlan
from suites.measuring.clock import Effort
from suites.records.facts import Facts
from suites.records.measurement import Measurement, Telemetry
from suites.records.parts import Check
from suites.running.builder_job import BuilderJob
from suites.running.deploy_job import DeployJob, Sampled, SampleJob
from suites.running.job import (
    BuildJob,
    Exported,
    ExportJob,
    FirstUse,
    Job,
    Located,
    LocateJob,
    Measured,
    MeasureJob,
    Probed,
    ProbeJob,
    Scored,
    ScoreJob,
    StartJob,
)
from suites.running.jobs_by_stage import JOBS
from suites.serving.batch_policy import BatchPolicy
from suites.serving.suite import Bound, ServingQuestion
from suites.suite import Question, load_suite, suite_names
from suites.switching.result import ColdStart
from suites.switching.suite import SwitchingQuestion
from suites.tasks.task_scores import TaskFigures, TaskScores
from suites.tritonserver.suite import TritonQuestion

SHAPES = (Shape(1, 16), Shape(8, 128))
FOLDER = Path("/cache")
INPUTS = Artifact(FOLDER / "inputs.npz", "a" * 64, {"numpy": "2.0"}, 1.5, {"tokens": "text", "shapes": {}})
GPU = Device("cuda", 1, "NVIDIA H100", "GPU-0", (9, 0), ("avx512_vnni",), "580.1")
OPTIONS, QUANTIZATION = OrtOptions(fusion=Switch.off), QuantizationOptions(samples=8, leave_out=["*Norm*"])
OUTPUT = Output("embedding", ("cls",), True, False)
SPEC = BuildSpec(
    "int8",
    GPU,
    SHAPES,
    True,
    FOLDER,
    OPTIONS,
    QUANTIZATION,
    {Shape(8, 128): 700},
    2,
    3,
    OUTPUT,
    True,
    BuildLimit("green", 0.25),
)
SOURCE = Source(FOLDER / "model", "b" * 64, onnx=INPUTS, ranges=INPUTS, marked=("embeddings", "0/probs"))
FORM = SourceForm(("gelu",), "fp16", ("*Norm*",), "int8", True, False, True, ("softmax",))
MODEL = ModelReference(
    "random", hub="a/b", revision="v1", package="c==1", package_of="a/b", package_sha256="0f", tokenizer="/tokenizer",
    architecture={"model_type": "bert", "num_hidden_layers": 2}, seed=3, identity="d" * 64, origin="path",
    padded={"vocab_size": 64},
)  # fmt: skip
QUESTIONS: dict[str, Question] = {
    "accuracy": AccuracyQuestion("stsb", ("no", "yes"), "argmax", ("a text", ["a", "pair"])),
    "latency": Question(),
    "alignment": AlignmentQuestion(
        (Sweep("sequence", 8, (127, 128), (8,)),),
        (TimedRun(SHAPES[0], True),),
        True,
        SHAPES,
        (SizeVariant("vocab_size", 61, 64, False, (), "unsupported", "why"),),
        1,
    ),
    "launch": Question(),
    "building": BuildingQuestion((Variant("first", "", SHAPES), Variant("option", "a.b=1", SHAPES[:1], {"b": [1]})), 1),
    "ceilings": CeilingsQuestion((256, 512), 16),
    "kernels": KernelsQuestion("library"),
    "layers": LayersQuestion(4, 8),
    "limits": LimitsQuestion(
        "mps", (0.25, 1.0), False, 1, True, LoadPlan(20.0, 2.0, (0.25, 0.5), 3), LoadClient(1, 0.25, True, "/socket")
    ),
    "serving": ServingQuestion(
        "bursts",
        BatchPolicy(8, 512, 2000),
        (10.0, 20.5),
        (1, 4),
        8,
        ((5, 0), (9, 16)),
        (Bound(5.0, 99.0, 8),),
        3,
        2,
        (0.5, 1.0),
        True,
    ),
    "tritonserver": TritonQuestion(
        "poisson",
        BatchPolicy(8, 0, 2000),
        (10.0,),
        seed=3,
        python="/venv/bin/python",
        server="/bin/tritonserver",
        grpc_url="a:1",
        http_url="b:2",
        served_model="m",
        host="127.0.0.2",
        grpc_port=1,
        http_port=2,
        protocols=("http",),
        start_s=3.0,
    ),
    "switching": SwitchingQuestion(SHAPES, {"switch=0.5": (((0, 1), (1,)), ((0,),))}, 40, 3),
}
EFFORT = Effort(1.0, 0.5, 10, 1000, 0.05, 20.0, 30.0)
MEASUREMENT = Measurement(
    "replay", 8, 128, True, (1, 2, 3), ((0, 6, 3),), True, (False,), Telemetry(power_w=1.0), 1, "switch=0.5"
)
CHECK = Check(batch=8, sequence=128, cuda_graph=True, nonfinite=1, cosine=None)


def export_job(suite: str) -> ExportJob:
    lengths = Lengths("histogram", "text", 4, values=(8, 16), counts=(3, 1), passes=2, multiple=8)
    return ExportJob(
        suite, "ort", "onnx", SPEC, MODEL, FORM, lengths, ("a", "b"), 7, QUESTIONS[suite], EFFORT, FOLDER / "lock"
    )


def measure_job(suite: str) -> MeasureJob:
    return MeasureJob(suite, "ort", SPEC, INPUTS, INPUTS.path, EFFORT, QUESTIONS[suite])


EXAMPLES: dict[str, tuple[Job[Any], Any]] = {
    "locate": (LocateJob(MODEL, FOLDER), Located(FOLDER / "model", "hub a/b@1")),
    "probe": (ProbeJob("ort", SPEC, 2), Probed({"numpy": "2.0"}, "onnxruntime 1.2", FORM, "unsupported", "no kernel")),
    "export": (
        export_job("latency"),
        Exported(SOURCE, INPUTS, SHAPES, "d", "path", ("*attention*",), {"encoder": {"longest": 16}}, 11,
                 {"trained": INPUTS}, INPUTS, EncoderSizes(2, 64, 64, 32, 128, True, 32)),
    ),
    "builder": (BuilderJob("ort", SPEC, FOLDER / "build"), INPUTS),
    "build": (BuildJob("ort", SPEC, SOURCE), INPUTS),
    "measure": (
        measure_job("layers"),
        Measured((MEASUREMENT,), (CHECK,), Facts(open_ns=5),
                 {"8x128": "no memory"}, LayersResult((Layer("0/probs", 2),)), FOLDER / "readouts.npy"),
    ),
    "start": (StartJob(measure_job("switching"), 2), FirstUse(ColdStart({"import": 5}, ()))),
    "score": (
        ScoreJob("stsb", {"scores": [1.0]}, FOLDER / "readouts.npy", INPUTS, FOLDER, "d", FOLDER),
        Scored(TaskScores(0, TaskFigures("spearman", 0.8, 0.1, 0.7, 1.0, 1.0, 0.1, 0.2))),
    ),
    "sample": (
        SampleJob(MODEL, ("a", "b"), 128, 7, FOLDER, OUTPUT),
        Sampled(INPUTS, FOLDER / "model", "d", "path", "b" * 64, ("input_ids",), ("vocab.txt",), ("modules.json",),
                Pooling(("cls",), False, "modules.json", (), True, 256)),
    ),
    "deploy": (
        DeployJob("ort", SPEC, INPUTS, INPUTS.path, ("input_ids",), FOLDER / "served", True),
        Deployed(("onnxruntime", "1.2"), ("onnxruntime", "numpy"), ("model.onnx",), {"file": "model.onnx"},
                 (TensorInfo("input_ids", "int32", ("batch", "16")),), (TensorInfo("hidden", "float32", ("64",)),),
                 ({"min": [1, 16]},), {"int8_weights": 3}),
    ),
}  # fmt: skip
"""A job of each stage and its answer. No field has its default value, so that a field that is lost is noticed."""

TYPES: tuple[type, ...] = tuple(dict.fromkeys((*JOBS.values(), *(job.answer for job in JOBS.values()))))


def example_of(kind: type) -> Any:
    """Return the example of a type of job or answer. Two stages may have the same type of answer."""
    return next(value for pair in EXAMPLES.values() for value in pair if type(value) is kind)


def through_json(value: object) -> Any:
    return json.loads(json.dumps(to_json(value)))


@pytest.mark.parametrize("stage", JOBS)
def test_a_job_and_its_answer_survive_the_way_through_json(stage: str) -> None:
    job, answer = EXAMPLES[stage]
    assert type(job) is JOBS[stage]
    assert type(answer) is JOBS[stage].answer
    assert from_json(JOBS[stage], through_json(job)) == job
    assert from_json(job.answer_type(), through_json(answer)) == answer


@pytest.mark.parametrize("kind", TYPES)
def test_the_examples_have_no_default_values(kind: type) -> None:
    example = example_of(kind)
    for field in dataclasses.fields(kind):
        default = field.default_factory() if callable(field.default_factory) else field.default
        assert getattr(example, field.name) != default, field.name


@pytest.mark.parametrize("suite", suite_names())
def test_the_question_of_each_suite_survives_the_way_through_json(suite: str) -> None:
    assert type(QUESTIONS[suite]) is load_suite(suite).question
    for job in (export_job(suite), measure_job(suite), StartJob(measure_job(suite), 0)):
        assert from_json(type(job), through_json(job)) == job


def test_a_model_that_is_absent_stays_absent() -> None:
    spec = dataclasses.replace(SPEC, options=NullOptions())
    job = dataclasses.replace(export_job("latency"), backend="null", source="none", spec=spec, model=None)
    assert from_json(ExportJob, through_json(job)) == job


def places(kind: type, data: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the dataclasses inside the JSON of a dataclass, each with its place."""
    found = [("job", dict(data))]
    for field in dataclasses.fields(kind):
        value = data[field.name]
        hint = typing.get_type_hints(kind)[field.name]
        # Parts of a record keep unknown keys.
        if (
            isinstance(value, dict)
            and dataclasses.is_dataclass(hint)
            and not (isinstance(hint, type) and issubclass(hint, Part))
        ):
            found.append((f"job.{field.name}", value))
    return found


@pytest.mark.parametrize("kind", TYPES)
def test_an_unknown_key_is_refused_with_its_place(kind: type) -> None:
    example = example_of(kind)
    number = len(places(kind, through_json(example)))
    for index in range(number):
        data = through_json(example)
        place, inner = places(kind, data)[index]
        (data if place == "job" else inner)["shape"] = 1
        with pytest.raises(NotThisType, match=f"^{re.escape(place)}.shape is unknown$"):
            from_json(kind, data, "job")


@pytest.mark.parametrize("kind", TYPES)
def test_a_missing_key_is_refused_with_its_place(kind: type) -> None:
    example = example_of(kind)
    for field in dataclasses.fields(kind):
        data = through_json(example)
        del data[field.name]
        if field.default is field.default_factory is dataclasses.MISSING:
            with pytest.raises(NotThisType, match=f"^job.{field.name} is missing$"):
                from_json(kind, data, "job")
        else:
            assert from_json(kind, data, "job") != example


def test_the_question_of_another_suite_is_refused_with_its_place() -> None:
    data = through_json(StartJob(measure_job("switching"), 0))
    data["measure"]["suite"] = "layers"
    with pytest.raises(NotThisType, match=r"^job\.measure\.question\.cold_starts is unknown$"):
        from_json(StartJob, data, "job")


def test_the_worker_refuses_a_job_with_an_unknown_key(tmp_path: Path) -> None:
    data = {**through_json(EXAMPLES["probe"][0]), "paces": 2}
    (tmp_path / "job.json").write_text(json.dumps(data))
    assert worker.main("probe", tmp_path) == 0
    answer = json.loads((tmp_path / "out.json").read_text())
    assert answer == {"outcome": "failed", "reason": "NotThisType: job.paces is unknown", "result": None}


def test_the_protocol_of_the_worker_lists_the_keys_of_every_job_and_answer() -> None:
    assert worker.__doc__ is not None
    text = re.sub(r"\n\s+->", " ->", worker.__doc__)
    listed = {
        stage: (keys.split(", "), answers.split(", "))
        for stage, keys, answers in re.findall(r"^ {6}(\w+): ([\w, ]+) -> ([\w, ]+)$", text, re.MULTILINE)
    }
    assert listed == {
        stage: tuple([field.name for field in dataclasses.fields(kind)] for kind in (job, job.answer))
        for stage, job in JOBS.items()
    }
    assert list(worker.STAGES.keys() ^ JOBS.keys()) == []


def types_in(kind: Any) -> set[Any]:
    """Return a type and the types in its arguments, e.g. Mapping[str, Any] in tuple[Mapping[str, Any], ...]."""
    return {kind}.union(*(types_in(argument) for argument in get_args(kind)))


def test_no_field_of_a_job_or_answer_is_an_untyped_mapping() -> None:
    untyped: set[str] = set()
    waiting: list[Any] = [*TYPES, *(load_suite(suite).question for suite in suite_names())]
    seen: set[Any] = set()
    while waiting:
        kind = waiting.pop()
        if kind in seen:
            continue
        seen.add(kind)
        for field in dataclasses.fields(kind):
            inner = types_in(typing.get_type_hints(kind)[field.name])
            waiting += [part for part in inner if isinstance(part, type) and dataclasses.is_dataclass(part)]
            for part in inner:
                if part is dict or (get_origin(part) in (Mapping, dict) and Any in get_args(part)):
                    untyped.add(f"{kind.__name__}.{field.name}")
    assert untyped == set()
    assert {BuildSpec, Source, Measurement, Shape} <= seen
