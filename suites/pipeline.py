"""One request, from a probe of its backend to a written record: export, build, measure, each in a worker."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backends.cache_files import remove_partials
from suites import record
from suites.cache_folder import compiler_caches
from suites.cell import Cell, short_digest
from suites.checks import Refused, check_record
from suites.clock import now_ns
from suites.device_lock import holding
from suites.job_folders import end_job, new_job
from suites.launch import Answer, CannotStart, CannotWrite, Interpreter, call
from suites.layers import first_past
from suites.locating import changed, located
from suites.machine_folders import without_folders
from suites.maker import HARNESS, SCORING, maker, typed_command
from suites.record import FAILED, OK, TIMED, Measurement, Record, path_of, write_record
from suites.request import Request
from suites.reuse import another_device, judged_anew, record_at, reusable
from suites.telemetry import Telemetry, annotate

WAITING = "for the device, which another run uses"

_said: set[Path] = set()
"""Caches in the folder of another user that a line was printed about."""

Progress = Callable[[str, str, bool], None]
"""Called with a stage, what it is doing now, and whether that should stay where a person can read it."""


@dataclass(frozen=True)
class Ended:
    """How a cell ended so far.

    Attributes:
        path: where the record lies; None if nothing was to be measured.
        reused: whether it was measured earlier.
        log: of a cell that failed.
        another: measures in one more fresh process; None once all that were asked for have measured. The cells of a
            sweep take turns, so that slow drift of the machine does not favour one of them.
    """

    record: Record
    path: Path | None
    reused: bool
    log: Path | None = None
    another: Callable[[], Ended] | None = None


@dataclass(frozen=True)
class Staged:
    """What stages gave: the last answer, parts of the record, and the job of measuring (empty if none was due)."""

    answer: Answer
    parts: dict[str, Any]
    job: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Stages:
    """Runs the stages of one request in its job folder, and keeps their times and the last log."""

    request: Request
    folder: Path
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    log_tail: str = ""

    def run(self, stage: str, job: Mapping[str, Any], python: str) -> Answer:
        device = self.request.machine.device
        compilers = compiler_caches(self.request.cache)
        if compilers is None:
            self.progress("cache", "other users can write compiled kernels in cache=; they are compiled again", True)
            compilers = self.folder / "compilers"
        # The worker sees its own GPU alone; compilers keep their caches in the project's.
        environment = {
            "CUDA_VISIBLE_DEVICES": device.uuid,
            "CUDA_MODULE_LOADING": os.environ.get("CUDA_MODULE_LOADING", "LAZY"),
            "TORCHINDUCTOR_CACHE_DIR": str(compilers / "inductor"),
            "TRITON_CACHE_DIR": str(compilers / "triton"),
            # Several small fits beside one another: threads that wait for threads take minutes for seconds.
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


def run_request(request: Request, progress: Progress) -> Ended:
    """Run a request, or find the record it left when it ran before on this very device.

    Raises:
        Refused: an interpreter cannot be started, or a record, a job or an artifact cannot be written; no half-written
            file is left.
    """
    if request.cache.name == f"uid-{os.geteuid()}" and request.cache not in _said:
        _said.add(request.cache)
        progress("cache", f"other users can write {request.cache.parent}; using {request.cache.name} in it", True)
    remove_partials(request.cache)  # of a run that was killed
    try:
        stages = Stages(request, new_job(request.cache), progress)
    except OSError as error:
        raise _cannot_write(request, error) from None
    return _settled(stages, lambda: _run(request, stages))


def run_to_end(request: Request, progress: Progress) -> Ended:
    """`run_request` with all processes that the request wants, one after another."""
    ended = run_request(request, progress)
    while ended.another is not None:
        ended = ended.another()
    return ended


def _cannot_write(request: Request, error: Exception) -> Refused:
    folders = f"results={request.results} or cache={request.cache}"
    return Refused(f"cannot write: {error}; free some space there or choose another folder than {folders}")


def _settled(stages: Stages, work: Callable[[], Ended]) -> Ended:
    """What `work` gives; with its job folder removed if no one needs it any more, or its log named if it failed."""
    request, keep = stages.request, False
    try:
        ended = work()
        if ended.another is not None:
            keep = True
            return ended
        keep = ended.record.outcome not in (OK, record.UNSUPPORTED)
        log = _last_log(stages.folder) if keep else None
        end_job(stages.folder, keep)
        return replace(ended, log=log)
    except CannotStart as error:
        names = "interpreter.main or the backend's own, as in inference-suites.yaml"
        raise Refused(f"{error}; {names}, must be a Python with numpy") from None
    except (CannotWrite, OSError) as error:
        raise _cannot_write(request, error) from None
    finally:
        if not keep:
            end_job(stages.folder, keep=False)
        remove_partials(request.cache)


def _last_log(folder: Path) -> Path | None:
    """The log of the last stage; None if the folder was removed meanwhile."""
    try:
        return max(folder.glob("*/log.txt"), key=lambda log: log.stat().st_mtime, default=None)
    except OSError:
        return None


def _run(request: Request, stages: Stages) -> Ended:
    checkpoint = located(request, stages.run)
    if isinstance(checkpoint, Answer):
        # Without the checkpoint the cell has no identity, so there is nothing to write down.
        cell = Cell(release="", **request.cell)
        return Ended(Record(cell, checkpoint.outcome, checkpoint.reason, {}), None, reused=False)
    request = checkpoint
    probed = stages.run("probe", request.job, request.interpreter)
    advice = "; interpreter.main or the backend's own, as in inference-suites.yaml, must be a Python with numpy"
    facts: dict[str, Any] = probed.result or {
        "release": "", "versions": {}, "outcome": probed.outcome, "reason": f"{probed.reason}{advice}", "form": {}
    }  # fmt: skip
    cell = Cell(release=facts["release"], **request.cell)
    path = path_of(request.results, request.machine.slug, cell)
    measuring = request.until == "measure"
    if measuring:
        check_record(request.results, path)
    earlier = record_at(path) if measuring else None
    known = earlier if earlier is not None and not request.rerun and reusable(earlier, request) else None
    if known is not None and processes_of(known) >= request.repeats:
        return Ended(judged_anew(known, request), path, reused=True)
    layers, more = request.suite == "layers", False
    environment = {"machine": request.machine.slug, **request.machine.description, "versions": facts["versions"]}
    if facts["outcome"] != OK:
        staged = Staged(Answer(facts["outcome"], facts["reason"], None, stages.log_tail), {})
    else:
        # From export on, for it too would disturb whoever measures on this device.
        with _device(request, stages):
            staged = _layers(request, stages, facts["form"]) if layers else _prepare(request, stages, facts["form"])
            more = bool(staged.job) and known is not None and _same_artifacts(known, staged.parts)
            if staged.job and not more and not layers:
                staged = _measure(request, stages, staged)
        if more:
            assert known is not None
            return _another(request, stages, staged.job, known)
        if measuring and staged.answer.outcome == OK:
            # Judging takes no device, and others wait for it.
            staged = Staged(*_judged(request, stages, staged.answer, staged.parts), staged.job)
        if staged.answer.outcome == OK and (reason := changed(request)):
            staged = replace(staged, answer=replace(staged.answer, outcome=FAILED, reason=reason))
    answer, parts = staged.answer, staged.parts
    ended = Record(
        cell=cell,
        outcome=answer.outcome,
        reason=answer.reason,
        environment=environment,
        settings=request.effort,
        stages=stages.seconds,
        command=typed_command(),
        measured_at=_now(),
        log_tail=stages.log_tail if answer.outcome != OK else "",
        maker=maker(),
        harness=HARNESS,
        scoring=SCORING,
        **parts,
    )
    ended = without_folders(ended, request)
    if earlier is not None and another_device(earlier, request):
        replaced = earlier.environment.get("uuid")
        stages.progress("record", f"replaces that of another device of this name, {replaced}", True)
    written = write_record(request.results, ended) if measuring else None
    return _with_another(request, stages, staged.job, Ended(ended, written, reused=False))


@contextlib.contextmanager
def _device(request: Request, stages: Stages) -> Iterator[None]:
    """Holds the device: alone where times are taken, with others who build or judge where none are."""
    device, timing = request.machine.device.uuid or "cpu", request.until == "measure" and request.suite in TIMED
    with holding(device, lambda: stages.progress("wait", WAITING, True), shared=not timing):
        yield


def processes_of(known: Record) -> int:
    """Fresh processes that measured."""
    return 1 + len(known.processes)


def _with_another(request: Request, stages: Stages, job: Mapping[str, Any], ended: Ended) -> Ended:
    """The same with a way to measure in one more process, if the request wants more than have measured."""
    if ended.path is None or ended.record.outcome != OK or processes_of(ended.record) >= request.repeats:
        return ended
    return replace(ended, another=lambda: _settled(stages, lambda: _another(request, stages, job, ended.record)))


def _another(request: Request, stages: Stages, job: Mapping[str, Any], known: Record) -> Ended:
    """The record with the measurements of one more process; a failure of that process fails the cell."""
    number = processes_of(known)
    with _device(request, stages):
        staged = _measure(request, stages, Staged(Answer(OK, "", None, ""), {}, {**job, "process": number}))
    answer, parts = staged.answer, staged.parts
    if answer.outcome == OK:
        answer, parts = _judged(request, stages, answer, parts)
    process = {"process": number, "measured_at": _now(), "facts": parts.get("facts", {})}
    ended = replace(
        known,
        outcome=answer.outcome,
        reason=f"process {number + 1} of {request.repeats}: {answer.reason}" if answer.outcome != OK else "",
        measurements=known.measurements + parts.get("measurements", ()),
        checks=known.checks + parts.get("checks", ()),
        processes=(*known.processes, process),
        stages=stages.seconds,
        log_tail=stages.log_tail if answer.outcome != OK else "",
    )
    ended = without_folders(ended, request)
    written = write_record(request.results, ended)
    return _with_another(request, stages, job, Ended(ended, written, reused=False))


def _same_artifacts(earlier: Record, parts: Mapping[str, Any]) -> bool:
    """Whether what would run now is what ran then, byte for byte."""
    now, then = (
        {name: artifact.get("sha256") for name, artifact in artifacts.items()}
        for artifacts in (parts["artifacts"], earlier.artifacts)
    )
    return now == then


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _prepare(request: Request, stages: Stages, form: Mapping[str, Any]) -> Staged:
    """Export and build; the job of measuring, unless there is nothing to measure."""
    parts: dict[str, Any] = {"artifacts": {}}
    exported = stages.run("export", {**request.job, "form": form}, request.main_interpreter)
    if exported.outcome != OK or request.until == "export":
        return Staged(exported, parts)
    source, inputs = exported.result["source"], exported.result["inputs"]
    asked = {
        **request.job,
        "shapes": exported.result["shapes"],
        "tokens": padded_tokens(inputs["notes"].get("shapes", {})),
    }
    built = stages.run("build", {**asked, "source": source}, request.interpreter)
    if built.outcome != OK:
        return Staged(built, parts)
    files = {name: source[name] for name in ("onnx", "arrays", "ranges")}
    learned = {name: exported.result.get(name) for name in ("trained", "searched")}
    named = {**files, **learned, "inputs": inputs, "built": built.result}
    known = {name: exported.result[name] for name in ("parts", "points", "checked") if name in exported.result}
    known |= exported.result.get("checkpoint", {})
    parts["artifacts"] = {"weights": {"sha256": source["sha256"], **known}} | {
        name: {key: value for key, value in artifact.items() if key != "path"}
        for name, artifact in named.items()
        if artifact
    }
    if request.until == "build":
        return Staged(built, parts)
    run = {"artifact": built.result, "inputs": inputs["path"], "effort": dict(request.effort)}
    identity = exported.result.get("checkpoint", {}).get("identity", "")
    origin = {"inputs": inputs, "checkpoint": source["checkpoint"], "identity": identity}
    return Staged(built, parts, {**asked, **run, "origin": origin})


def _measure(request: Request, stages: Stages, prepared: Staged) -> Staged:
    """Measure in one fresh process."""
    job, parts = prepared.job, dict(prepared.parts)
    with Telemetry(request.machine.device.uuid) as telemetry:
        measured = stages.run("measure", job, request.interpreter)
    if measured.outcome != OK:
        return Staged(measured, parts)
    found, process = measured.result, job.get("process", 0)
    if "found" in found:
        found["judged"] = {"found": found["found"], **job["origin"]}
    taken = [Measurement.from_json({**measurement, "process": process}) for measurement in found["measurements"]]
    parts["measurements"] = tuple(annotate(measurement, telemetry.readings) for measurement in taken)
    if "switching" in found:
        parts["scores"] = found["switching"]
    numbered = {"process": process} if process else {}
    parts["checks"] = tuple({**c, **numbered, "problem": _problem(c, request.minimum_cosine)} for c in found["checks"])
    parts["facts"] = found["facts"]
    for number in range(request.job.get("starts", 0)):
        started = stages.run("start", {**job, "number": number}, request.interpreter)
        if started.outcome != OK:
            return Staged(started, parts)
        parts["scores"]["starts"].append(started.result)
    return Staged(measured, parts, job)


def _judged(request: Request, stages: Stages, measured: Answer, parts: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    """The same with what a task says of the outputs, and a failure where they are no answer."""
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
    """Batch, sequence and tokens of the shapes whose inputs have padding: an engine is tuned for what it will run."""
    named = [[*map(int, name.split("x")), known["tokens"]] for name, known in shapes.items()]
    return [[batch, sequence, tokens] for batch, sequence, tokens in named if tokens < batch * sequence]


def _layers(request: Request, stages: Stages, form: Mapping[str, Any]) -> Staged:
    """Prepare and measure one chunk of marked outputs after another, each with an engine of its own."""
    layers: list[Mapping[str, Any]] = []
    (begin, size), count = request.job["chunk"], 1
    while begin < count:
        part = replace(request, job={**request.job, "chunk": [begin, size]})
        staged = _prepare(part, stages, form)
        if staged.job:
            staged = _measure(part, stages, staged)
        if staged.answer.outcome != OK or request.until == "export":
            return staged
        begin, count = begin + size, staged.parts["artifacts"]["weights"]["points"]
        layers += staged.answer.result.get("layers", [])
    threshold = request.task["threshold"]
    scores = {"layers": layers, "threshold": threshold, "first": first_past(layers, threshold)}
    return Staged(staged.answer, {**staged.parts, "scores": scores})


def _problem(check: Mapping[str, Any], minimum_cosine: float) -> str:
    """Why an output is no answer, whatever its speed; empty if it is one."""
    if check["nonfinite"]:
        return f"{check['nonfinite']} outputs are NaN or Inf"
    if check["cosine"] < minimum_cosine:
        return f"cosine to the FP32 reference is below {minimum_cosine}"
    return ""


def _by_reason(problems: Mapping[str, str]) -> str:
    """Shapes grouped by what went wrong with them, in one line."""
    shapes: dict[str, list[str]] = {}
    for shape, reason in problems.items():
        shapes.setdefault(reason, []).append(shape)
    return "; ".join(f"{', '.join(where)}: {reason}" for reason, where in shapes.items())
