"""One request, from a probe of its backend to a written record: export, build, measure, each in a worker."""

from __future__ import annotations

import datetime
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backends.cache_files import remove_partials
from suites import record
from suites.cache_folder import compiler_caches, job_folder
from suites.cell import Cell, short_digest
from suites.checks import Refused, check_record
from suites.clock import now_ns
from suites.device_lock import holding
from suites.launch import Answer, CannotStart, CannotWrite, Interpreter, call
from suites.layers import first_past
from suites.machine_folders import without_folders
from suites.record import FAILED, OK, Measurement, Record, path_of, read_record, write_record
from suites.request import Request
from suites.telemetry import Telemetry, annotate

WAITING = "for the device, which another run uses"

TIMED = ("latency", "switching")
"""The suites whose measurement wants its device for itself; the others judge outputs."""

_said: set[Path] = set()
"""Caches in the folder of another user that a line was printed about."""

Progress = Callable[[str, str, bool], None]
"""Called with a stage, what it is doing now, and whether that should stay where a person can read it."""


@dataclass(frozen=True)
class Ended:
    """A record, where it lies (nowhere if nothing was to be measured), whether it was measured earlier, and where the
    log of a cell that failed is."""

    record: Record
    path: Path | None
    reused: bool
    log: Path | None = None


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
    folders = f"results={request.results} or cache={request.cache}"
    advice = f"free some space there or choose another folder than {folders}"
    if request.cache.name == f"uid-{os.geteuid()}" and request.cache not in _said:
        _said.add(request.cache)
        progress("cache", f"other users can write {request.cache.parent}; using {request.cache.name} in it", True)
    remove_partials(request.cache)  # of a run that was killed
    try:
        with job_folder(request.cache) as folder:
            ended = _run(request, Stages(request, folder, progress))
    except CannotStart as error:
        names = "interpreter.main or the backend's own, as in conf/interpreter"
        raise Refused(f"{error}; {names}, must be a Python with numpy") from None
    except CannotWrite as error:
        raise Refused(f"cannot write: {error}; {advice}") from None
    except OSError as error:
        raise Refused(f"cannot write: {error}; {advice}") from None
    finally:
        remove_partials(request.cache)
    if ended.record.outcome in (OK, record.UNSUPPORTED):
        shutil.rmtree(folder, ignore_errors=True)
        return ended
    return replace(ended, log=_last_log(folder))


def _last_log(folder: Path) -> Path | None:
    """The log of the last stage; None if the folder was removed meanwhile."""
    try:
        return max(folder.glob("*/log.txt"), key=lambda log: log.stat().st_mtime, default=None)
    except OSError:
        return None


def _run(request: Request, stages: Stages) -> Ended:
    probed = stages.run("probe", request.job, request.interpreter)
    advice = "; interpreter.main or the backend's own, as in conf/interpreter, must be a Python with numpy"
    facts: dict[str, Any] = probed.result or {
        "release": "", "versions": {}, "outcome": probed.outcome, "reason": f"{probed.reason}{advice}", "form": {}
    }  # fmt: skip
    cell = Cell(release=facts["release"], **request.cell)
    path = path_of(request.results, request.machine.slug, cell)
    measuring = request.until == "measure"
    if measuring:
        check_record(request.results, path)
    if measuring and not request.rerun and (earlier := _reusable(path, request)):
        return Ended(_judged_anew(earlier, request), path, reused=True)
    environment = {"machine": request.machine.slug, **request.machine.description, "versions": facts["versions"]}
    parts: dict[str, Any] = {}
    if facts["outcome"] != OK:
        answer = Answer(facts["outcome"], facts["reason"], None, stages.log_tail)
    else:
        # From export on, for it too would disturb whoever measures on this device.
        device, timing = request.machine.device.uuid or "cpu", measuring and request.suite in TIMED
        with holding(device, lambda: stages.progress("wait", WAITING, True), shared=not timing):
            answer, parts = (_layers if request.suite == "layers" else _stages)(request, stages, facts["form"])
        if measuring and answer.outcome == OK:
            # Judging takes no device, and others wait for it.
            answer, parts = _judged(request, stages, answer, parts)
    ended = Record(
        cell=cell,
        outcome=answer.outcome,
        reason=answer.reason,
        environment=environment,
        settings=request.effort,
        stages=stages.seconds,
        command=(Path(sys.executable).name, *sys.orig_argv[1:]),
        measured_at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        log_tail=stages.log_tail if answer.outcome != OK else "",
        **parts,
    )
    ended = without_folders(ended, request)
    return Ended(ended, write_record(request.results, ended) if measuring else None, reused=False)


def _stages(request: Request, stages: Stages, form: Mapping[str, Any]) -> tuple[Answer, dict[str, Any]]:
    """The last stage's answer, and the parts of the record that the stages gave."""
    parts: dict[str, Any] = {"artifacts": {}}
    exported = stages.run("export", {**request.job, "form": form}, request.main_interpreter)
    if exported.outcome != OK or request.until == "export":
        return exported, parts
    source, inputs = exported.result["source"], exported.result["inputs"]
    asked = {
        **request.job,
        "shapes": exported.result["shapes"],
        "tokens": padded_tokens(inputs["notes"].get("shapes", {})),
    }
    built = stages.run("build", {**asked, "source": source}, request.interpreter)
    if built.outcome != OK:
        return built, parts
    files = {name: source[name] for name in ("onnx", "arrays", "ranges")}
    learned = {name: exported.result.get(name) for name in ("trained", "searched")}
    named = {**files, **learned, "inputs": inputs, "built": built.result}
    known = {name: exported.result[name] for name in ("parts", "points") if name in exported.result}
    parts["artifacts"] = {"weights": {"sha256": source["sha256"], **known}} | {
        name: {key: value for key, value in artifact.items() if key != "path"}
        for name, artifact in named.items()
        if artifact
    }
    if request.until == "build":
        return built, parts
    job = {**asked, "artifact": built.result, "inputs": inputs["path"], "effort": dict(request.effort)}
    with Telemetry(request.machine.device.uuid) as telemetry:
        measured = stages.run("measure", job, request.interpreter)
    if measured.outcome != OK:
        return measured, parts
    found = measured.result
    if "found" in found:
        found["judged"] = {"found": found["found"], "inputs": inputs, "checkpoint": source["checkpoint"]}
    parts["measurements"] = tuple(annotate(Measurement.from_json(m), telemetry.readings) for m in found["measurements"])
    if "switching" in found:
        parts["scores"] = found["switching"]
    parts["checks"] = tuple({**c, "problem": _problem(c, request.minimum_cosine)} for c in found["checks"])
    parts["facts"] = found["facts"]
    for number in range(request.job.get("starts", 0)):
        started = stages.run("start", {**job, "number": number}, request.interpreter)
        if started.outcome != OK:
            return started, parts
        parts["scores"]["starts"].append(started.result)
    return measured, parts


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


def _layers(request: Request, stages: Stages, form: Mapping[str, Any]) -> tuple[Answer, dict[str, Any]]:
    """`_stages` for one chunk of marked outputs after another, each with an engine of its own."""
    layers: list[Mapping[str, Any]] = []
    (begin, size), count = request.job["chunk"], 1
    while begin < count:
        part = replace(request, job={**request.job, "chunk": [begin, size]})
        answer, parts = _stages(part, stages, form)
        if answer.outcome != OK or request.until == "export":
            return answer, parts
        begin, count = begin + size, parts["artifacts"]["weights"]["points"]
        layers += answer.result.get("layers", [])
    threshold = request.task["threshold"]
    parts["scores"] = {"layers": layers, "threshold": threshold, "first": first_past(layers, threshold)}
    return answer, parts


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


def _reusable(path: Path, request: Request) -> Record | None:
    """The record at `path` if it answered the question on this very device; failures are tried again."""
    try:
        earlier = read_record(path)
    except (OSError, ValueError):
        return None
    same_device = earlier.environment.get("uuid") == request.machine.description["uuid"]
    wanted = short_digest(request.task["targets"])
    same_targets = earlier.scores.get("targets", wanted) == wanted
    return earlier if same_device and same_targets and earlier.outcome in (OK, record.UNSUPPORTED) else None


def _judged_anew(earlier: Record, request: Request) -> Record:
    """A record under the tolerance or threshold asked for now, written down if it was judged by another."""
    scores = dict(earlier.scores)
    if "tolerance" in scores:
        scores["tolerance"] = request.task["tolerance"]
    if "threshold" in scores:
        scores["threshold"] = request.task["threshold"]
        scores["first"] = first_past(scores["layers"], scores["threshold"])
    if scores == earlier.scores:
        return earlier
    judged = replace(earlier, scores=scores)
    write_record(request.results, judged)
    return judged
