"""The stages of a request, each in a worker: export, build, measure, and score the outputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from backends.base import Artifact, Shape, SourceForm
from backends.json_codec import from_json, to_object
from suites.asking.cache_folder import compiler_caches
from suites.asking.request import Request
from suites.measuring.clock import now_ns
from suites.records.artifacts import Artifacts
from suites.records.cell import short_digest
from suites.records.facts import Facts
from suites.records.measurement import Measurement
from suites.records.parts import Check
from suites.records.record import FAILED, OK
from suites.running.build_rounds import spec_of_round
from suites.running.engine_notes import note_engine
from suites.running.job import A, BuildJob, Exported, ExportJob, Job, Measured, MeasureJob, ScoreJob, StartJob
from suites.running.launch import Answer, Interpreter, call
from suites.running.telemetry import GpuReadings, TelemetrySampler, annotate
from suites.suite import FirstUseCosts, Result, load_suite
from suites.tasks.task_scores import TaskScores

Progress = Callable[[str, str, bool], None]
"""Called with a stage, its current activity, and whether the line should stay visible."""


@dataclass(frozen=True)
class RecordParts:
    """The fields of a record that stages fill."""

    artifacts: Artifacts = field(default_factory=Artifacts)
    measurements: tuple[Measurement, ...] = ()
    checks: tuple[Check, ...] = ()
    facts: Facts = field(default_factory=Facts)
    result: Result | None = None


@dataclass(frozen=True)
class StageResult:
    """Result of one or more stages.

    Attributes:
        outcome, reason: of the last stage.
        exported: files of the export stage; None if it did not end well.
        job: job of the measure stage; None if there is nothing to measure.
        measured: answer of the measure stage; None before it.
    """

    outcome: str = OK
    reason: str = ""
    parts: RecordParts = field(default_factory=RecordParts)
    exported: Exported | None = None
    job: MeasureJob | None = None
    measured: Measured | None = None

    def failed(self, answer: Answer[A]) -> StageResult:
        """Return the same parts with the outcome of a stage that did not end well."""
        return replace(self, outcome=answer.outcome, reason=answer.reason)


@dataclass
class Stages:
    """Stages of one request in its job folder, with their times in seconds and the last log."""

    request: Request
    folder: Path
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    log_tail: str = ""

    def run(self, job: Job[A], python: str) -> Answer[A]:
        """Run a job in the interpreter `python` and return its answer."""
        stage, device = job.stage, self.request.machine.device
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
            **({"OMP_NUM_THREADS": "1"} if stage == ScoreJob.stage else {}),
            **(self._tokenizer_threads() if stage == ExportJob.stage else {}),
        }
        self.progress(stage, "starting", False)
        start = now_ns()
        answer = call(
            job,
            self.folder / stage,
            Interpreter(python, environment),
            self.request.time_limit,
            lambda text, keep: self.progress(stage, text, keep),
        )
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + (now_ns() - start) / 1e9, 3)
        self.log_tail = answer.log_tail
        return answer

    def _tokenizer_threads(self) -> dict[str, str]:
        """Return environment variables for the stage that times the tokenizer: threads as in a server, or as given."""
        threads = os.environ.get("RAYON_NUM_THREADS") or self.request.spec.threads
        given = {"TOKENIZERS_PARALLELISM": os.environ.get("TOKENIZERS_PARALLELISM", "true")}
        return {**given, "RAYON_NUM_THREADS": str(threads)} if threads else given


def prepare(request: Request, stages: Stages, form: SourceForm, earlier: Exported | None = None) -> StageResult:
    """Export and build. The result has the job of the measure stage, unless a stage failed or is the last one.

    Args:
        earlier: the export of an earlier round, which this round builds from too.
    """
    if earlier is None:
        exported = stages.run(export_job(request, form), request.main_interpreter)
        if exported.result is None or request.until == "export":
            return StageResult(exported.outcome, exported.reason)
        earlier = exported.result
    files = earlier
    spec = replace(request.spec, shapes=files.shapes, tokens=padded_tokens(files.inputs))
    build_round = request.question.build_round() if request.until == "measure" else None
    if build_round is not None:
        stages.progress(BuildJob.stage, build_round.title, True)
        spec = spec_of_round(spec, build_round, stages.folder)
    built = stages.run(BuildJob(request.backend, spec, files.source), request.interpreter)
    if built.result is None:
        return StageResult(built.outcome, built.reason, exported=files)
    if build_round is None:
        note_engine(request, built.result)
    parts = RecordParts(artifacts=artifacts_of(files, built.result))
    if request.until == "build":
        return StageResult(parts=parts, exported=files)
    job = MeasureJob(
        request.suite, request.backend, spec, built.result, files.inputs.path, request.effort, request.question
    )
    return StageResult(parts=parts, exported=files, job=job)


def export_job(request: Request, form: SourceForm) -> ExportJob:
    """Return the job of the export stage."""
    return ExportJob(
        suite=request.suite,
        backend=request.backend,
        source=request.source,
        spec=request.spec,
        model=None if request.model is None else request.question.model(request.model),
        form=form,
        lengths=request.lengths,
        texts=request.texts,
        seed=request.seed,
        question=request.question,
        effort=request.effort if request.until == "measure" else None,
    )


def artifacts_of(exported: Exported, built: Artifact) -> Artifacts:
    """Return the artifacts of a record: everything but their paths."""
    source = exported.source
    files = {"onnx": source.onnx, "arrays": source.arrays, "ranges": source.ranges, **exported.learned,
             "inputs": exported.inputs, "tokenization": exported.tokenization, "built": built}  # fmt: skip
    weights: dict[str, object] = {"sha256": source.sha256}
    if exported.identity:
        weights |= {"parts": list(exported.parts), "checked": dict(exported.checked)}
        weights |= {"points": exported.points} if exported.points else {}
        weights |= {"identity": exported.identity, "origin": exported.origin}
        weights |= {"sizes": to_object(exported.sizes)} if exported.sizes else {}
    stored = {
        name: {key: value for key, value in to_object(file).items() if key != "path"}
        for name, file in files.items()
        if file is not None
    }
    return from_json(Artifacts, {"weights": weights, **stored}, "artifacts")


def padded_tokens(inputs: Artifact) -> dict[Shape, int]:
    """Return the number of tokens of the shapes whose inputs have padding.

    An engine is tuned for the number of tokens that it will run.
    """
    notes = from_json(Mapping[str, Mapping[str, object]], inputs.notes.get("shapes", {}), "shapes")
    tokens = {Shape.parse(name): from_json(int, of_shape["tokens"], name) for name, of_shape in notes.items()}
    return {shape: count for shape, count in tokens.items() if count < shape.batch * shape.sequence}


def measure(request: Request, stages: Stages, prepared: StageResult, process: int = 0) -> StageResult:
    """Measure in one fresh process, the one with this number."""
    assert prepared.job is not None
    job = replace(prepared.job, spec=replace(prepared.job.spec, process=process))
    with TelemetrySampler(request.machine.device.uuid) as telemetry:
        answer = stages.run(job, request.interpreter)
    if answer.result is None:
        return prepared.failed(answer)
    measured = answer.result
    checks = tuple(
        replace(check, process=process, problem=_problem(check, request.minimum_cosine)) for check in measured.checks
    )
    parts = replace(
        prepared.parts,
        measurements=tuple(
            annotate(replace(measurement, process=process), telemetry.readings) for measurement in measured.measurements
        ),
        checks=checks,
        facts=measured.facts,
        result=measured.result and load_suite(request.suite).observed(measured.result, GpuReadings(telemetry.readings)),
    )
    result = replace(prepared, parts=parts, measured=measured)
    starts: list[FirstUseCosts] = []
    for number in range(job.question.starts):
        started = stages.run(StartJob(job, number), request.interpreter)
        if started.result is None:
            return result.failed(started)
        starts.append(started.result.result)
    if starts and parts.result is not None:
        extended = load_suite(request.suite).started(parts.result, starts)
        result = replace(result, parts=replace(parts, result=extended))
    return result


def score(request: Request, stages: Stages, staged: StageResult) -> StageResult:
    """Add the scores of the task, and turn the result into a failure if outputs are wrong."""
    assert staged.measured is not None
    measured, exported, judging = staged.measured, staged.exported, request.judging
    if measured.readouts is not None and exported is not None:
        job = ScoreJob(
            judging.kind,
            judging.targets,
            measured.readouts,
            exported.inputs,
            exported.source.checkpoint,
            exported.identity,
            request.cache,
        )
        scored = stages.run(job, request.main_interpreter)
        if scored.result is None:
            return staged.failed(scored)
        scores = replace(scored.result.scores, targets=short_digest(judging.targets))
        result = load_suite(request.suite).judged(scores, judging)
        staged = replace(staged, parts=replace(staged.parts, result=result))
    problems = dict(measured.failures)
    if isinstance(staged.parts.result, TaskScores) and staged.parts.result.nonfinite:
        problems["all texts"] = f"{staged.parts.result.nonfinite} outputs are NaN or Inf"
    for check in staged.parts.checks:
        if check.problem:
            graph = " with CUDA graph" if check.cuda_graph else ""
            problems[f"{check.batch}x{check.sequence}{graph}"] = check.problem
    return replace(staged, outcome=FAILED, reason=_by_reason(problems)) if problems else staged


def _problem(check: Check, minimum_cosine: float) -> str:
    """Return the reason why an output is wrong; empty if it is right."""
    if check.nonfinite or check.cosine is None:
        return f"{check.nonfinite} outputs are NaN or Inf"
    if check.cosine < minimum_cosine:
        return f"cosine to the FP32 reference is below {minimum_cosine}"
    return ""


def _by_reason(problems: Mapping[str, str]) -> str:
    """Group shapes by their problem, in one line."""
    shapes: dict[str, list[str]] = {}
    for shape, reason in problems.items():
        shapes.setdefault(reason, []).append(shape)
    return "; ".join(f"{', '.join(where)}: {reason}" for reason, where in shapes.items())
