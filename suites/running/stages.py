"""The stages of a request, each in a worker: export, build, measure, and score the outputs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from backends.base import SourceForm
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
from suites.running.builder_job import BuilderJob
from suites.running.builder_process import BuilderProcess, starts_early
from suites.running.engine_notes import note_engine
from suites.running.exported_files import artifacts_of, padded_tokens
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
    _builder: BuilderProcess | None = None

    def run(self, job: Job[A], python: str) -> Answer[A]:
        """Run a job in the interpreter `python` and return its answer. A builder that has started runs the build."""
        stage, limit = job.stage, self.request.time_limit
        self.progress(stage, "starting", False)
        start = now_ns()
        answer = self._builder.build(job, limit) if self._builder is not None and stage == BuildJob.stage else None
        if answer is None:
            interpreter = Interpreter(python, self._environment(stage))
            answer = call(job, self.folder / stage, interpreter, limit, partial(self._line, stage))
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + (now_ns() - start) / 1e9, 3)
        self.log_tail = answer.log_tail
        return answer

    @contextlib.contextmanager
    def starting_builder(self, request: Request) -> Iterator[Path | None]:
        """Start the builder of `request` in this context, if that takes long, and end it.

        Returns:
            The file that is locked while the builder starts; None without a builder.
        """
        if not starts_early(request):
            yield None
            return
        stage = BuildJob.stage
        interpreter = Interpreter(request.interpreter, self._environment(stage))
        job = BuilderJob(request.backend, request.spec, self.folder / stage)
        self._builder = BuilderProcess(job, interpreter, partial(self._line, stage))
        try:
            yield self._builder.lock
        finally:
            self._builder.end()
            self._builder = None

    def _line(self, stage: str, text: str, keep: bool) -> None:
        self.progress(stage, text, keep)

    def _environment(self, stage: str) -> dict[str, str]:
        """Return the environment variables of the worker of a stage."""
        compilers = compiler_caches(self.request.cache)
        if compilers is None:
            self.progress(
                "cache", "other users can write the compiled kernels in cache=, so kernels are compiled again", True
            )
            compilers = self.folder / "compilers"
        # The worker sees only its own GPU. Compilers keep their caches in the cache of the project.
        return {
            "CUDA_VISIBLE_DEVICES": self.request.machine.device.uuid,
            "CUDA_MODULE_LOADING": os.environ.get("CUDA_MODULE_LOADING", "LAZY"),
            "TORCHINDUCTOR_CACHE_DIR": str(compilers / "inductor"),
            "TRITON_CACHE_DIR": str(compilers / "triton"),
            # Scoring runs several small fits in parallel. More threads in each would wait for one another, and scoring
            # would take minutes instead of seconds.
            **({"OMP_NUM_THREADS": "1"} if stage == ScoreJob.stage else {}),
            **(self._tokenizer_threads() if stage == ExportJob.stage else {}),
        }

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
    if earlier is not None:
        return _build(request, stages, earlier)
    with stages.starting_builder(request) as lock:
        job = replace(export_job(request, form), builder_lock=lock)
        exported = stages.run(job, request.main_interpreter)
        if exported.result is None or request.until == "export":
            return StageResult(exported.outcome, exported.reason)
        return _build(request, stages, exported.result)


def _build(request: Request, stages: Stages, files: Exported) -> StageResult:
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
