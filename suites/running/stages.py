"""The stages of a request, each in a worker: export, build, measure, and judge the outputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backends.base import Shape
from suites.asking.cache_folder import compiler_caches
from suites.asking.request import Request
from suites.layers.measure import first_above
from suites.measuring.clock import now_ns
from suites.records.cell import short_digest
from suites.records.record import FAILED, OK, Measurement
from suites.running.launch import Answer, Interpreter, call
from suites.running.telemetry import Telemetry, annotate

Progress = Callable[[str, str, bool], None]
"""Called with a stage, its current activity, and whether the line should stay visible."""


@dataclass(frozen=True)
class StageResult:
    """Result of one or more stages.

    Attributes:
        answer: answer of the last stage.
        parts: fields of the record.
        job: job of the measure stage; empty if the request does not measure.
    """

    answer: Answer
    parts: dict[str, Any]
    job: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Stages:
    """Stages of one request in its job folder, with their times in seconds and the last log."""

    request: Request
    folder: Path
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    log_tail: str = ""

    def run(self, stage: str, job: Mapping[str, Any], python: str) -> Answer:
        device = self.request.machine.device
        compilers = compiler_caches(self.request.cache)
        if compilers is None:
            self.progress(
                "cache", "other users can write the compiled kernels in cache=, so kernels are compiled again", True
            )
            compilers = self.folder / "compilers"
        # The worker sees only its own GPU. Compilers keep their caches in the cache of the project.
        environment = {
            "CUDA_VISIBLE_DEVICES": device.uuid,
            "CUDA_MODULE_LOADING": os.environ.get("CUDA_MODULE_LOADING", "LAZY"),
            "TORCHINDUCTOR_CACHE_DIR": str(compilers / "inductor"),
            "TRITON_CACHE_DIR": str(compilers / "triton"),
            # Scoring runs several small fits in parallel. More threads in each would wait for one another, and scoring
            # would take minutes instead of seconds.
            **({"OMP_NUM_THREADS": "1"} if stage == "score" else {}),
        }
        self.progress(stage, "starting", False)
        start = now_ns()
        answer = call(
            stage,
            job,
            self.folder / stage,
            Interpreter(python, environment),
            self.request.time_limit,
            lambda text, keep: self.progress(stage, text, keep),
        )
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + (now_ns() - start) / 1e9, 3)
        self.log_tail = answer.log_tail
        return answer


def prepare(request: Request, stages: Stages, form: Mapping[str, Any]) -> StageResult:
    """Export and build. The result has the job of the measure stage, unless a stage failed or is the last one."""
    parts: dict[str, Any] = {"artifacts": {}}
    exported = stages.run("export", {**request.job, "form": form}, request.main_interpreter)
    if exported.outcome != OK or request.until == "export":
        return StageResult(exported, parts)
    source, inputs = exported.result["source"], exported.result["inputs"]
    build_job = {
        **request.job,
        "shapes": exported.result["shapes"],
        "tokens": padded_tokens(inputs["notes"].get("shapes", {})),
    }
    built = stages.run("build", {**build_job, "source": source}, request.interpreter)
    if built.outcome != OK:
        return StageResult(built, parts)
    files = {name: source[name] for name in ("onnx", "arrays", "ranges")}
    learned = {name: exported.result.get(name) for name in ("trained", "searched")}
    artifacts = {**files, **learned, "inputs": inputs, "built": built.result}
    weights_facts = {name: exported.result[name] for name in ("parts", "points", "checked") if name in exported.result}
    weights_facts |= exported.result.get("checkpoint", {})
    parts["artifacts"] = {"weights": {"sha256": source["sha256"], **weights_facts}} | {
        name: {key: value for key, value in artifact.items() if key != "path"}
        for name, artifact in artifacts.items()
        if artifact
    }
    if request.until == "build":
        return StageResult(built, parts)
    run = {"artifact": built.result, "inputs": inputs["path"], "effort": dict(request.effort)}
    identity = exported.result.get("checkpoint", {}).get("identity", "")
    origin = {"inputs": inputs, "checkpoint": source["checkpoint"], "identity": identity}
    return StageResult(built, parts, {**build_job, **run, "origin": origin})


def measure(request: Request, stages: Stages, prepared: StageResult) -> StageResult:
    """Measure in one fresh process."""
    job, parts = prepared.job, dict(prepared.parts)
    with Telemetry(request.machine.device.uuid) as telemetry:
        measured = stages.run("measure", job, request.interpreter)
    if measured.outcome != OK:
        return StageResult(measured, parts)
    result, process = measured.result, job.get("process", 0)
    if "found" in result:
        result["judged"] = {"found": result["found"], **job["origin"]}
    measurements = [
        Measurement.from_json({**measurement, "process": process}) for measurement in result["measurements"]
    ]
    parts["measurements"] = tuple(annotate(measurement, telemetry.readings) for measurement in measurements)
    if "switching" in result:
        parts["scores"] = result["switching"]
    numbered = {"process": process} if process else {}
    parts["checks"] = tuple({**c, **numbered, "problem": _problem(c, request.minimum_cosine)} for c in result["checks"])
    parts["facts"] = result["facts"]
    for number in range(request.job.get("starts", 0)):
        started = stages.run("start", {**job, "number": number}, request.interpreter)
        if started.outcome != OK:
            return StageResult(started, parts)
        parts["scores"]["starts"].append(started.result)
    return StageResult(measured, parts, job)


def judged(request: Request, stages: Stages, measured: Answer, parts: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    """Add the scores of the task, and turn the answer into a failure if outputs are wrong."""
    if "judged" in measured.result:
        job = {**request.task, **measured.result["judged"], "cache": request.job["cache"]}
        scored = stages.run("score", job, request.main_interpreter)
        if scored.outcome != OK:
            return scored, parts
        judged_by = {"tolerance": request.task["tolerance"], "targets": short_digest(request.task["targets"])}
        parts = {**parts, "scores": {**scored.result, **judged_by}}
    problems = dict(measured.result.get("failures", {}))
    if parts.get("scores", {}).get("nonfinite"):
        problems["all texts"] = f"{parts['scores']['nonfinite']} outputs are NaN or Inf"
    for check in parts.get("checks", ()):
        if check["problem"]:
            graph = " with CUDA graph" if check["cuda_graph"] else ""
            problems[f"{check['batch']}x{check['sequence']}{graph}"] = check["problem"]
    return (Answer(FAILED, _by_reason(problems), None, measured.log_tail) if problems else measured), parts


def padded_tokens(shapes: Mapping[str, Mapping[str, int]]) -> list[list[int]]:
    """Return [batch, sequence, tokens] of the shapes whose inputs have padding.

    An engine is tuned for the number of tokens that it will run.
    """
    counted = [(Shape.parse(name), notes["tokens"]) for name, notes in shapes.items()]
    return [[shape.batch, shape.sequence, tokens] for shape, tokens in counted if tokens < shape.batch * shape.sequence]


def measure_layers(request: Request, stages: Stages, form: Mapping[str, Any]) -> StageResult:
    """Prepare and measure the marked outputs in chunks, each chunk with its own engine."""
    layers: list[Mapping[str, Any]] = []
    (begin, size), count = request.job["chunk"], 1
    while begin < count:
        chunk_request = replace(request, job={**request.job, "chunk": [begin, size]})
        staged = prepare(chunk_request, stages, form)
        if staged.job:
            staged = measure(chunk_request, stages, staged)
        if staged.answer.outcome != OK or request.until == "export":
            return staged
        begin, count = begin + size, staged.parts["artifacts"]["weights"]["points"]
        layers += staged.answer.result.get("layers", [])
    threshold = request.task["threshold"]
    scores = {"layers": layers, "threshold": threshold, "first": first_above(layers, threshold)}
    return StageResult(staged.answer, {**staged.parts, "scores": scores})


def _problem(check: Mapping[str, Any], minimum_cosine: float) -> str:
    """Return the reason why an output is wrong; empty if it is right."""
    if check["nonfinite"]:
        return f"{check['nonfinite']} outputs are NaN or Inf"
    if check["cosine"] < minimum_cosine:
        return f"cosine to the FP32 reference is below {minimum_cosine}"
    return ""


def _by_reason(problems: Mapping[str, str]) -> str:
    """Group shapes by their problem, in one line."""
    shapes: dict[str, list[str]] = {}
    for shape, reason in problems.items():
        shapes.setdefault(reason, []).append(shape)
    return "; ".join(f"{', '.join(where)}: {reason}" for reason, where in shapes.items())
