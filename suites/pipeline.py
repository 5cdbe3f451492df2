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

from suites import record
from suites.cell import Cell, short_digest
from suites.checks import Refused
from suites.clock import now_ns
from suites.launch import Answer, CannotWrite, Interpreter, call, holding
from suites.layers import first_past
from suites.locating import changed, located
from suites.record import CANNOT_WRITE, FAILED, OK, Measurement, Record, path_of, read_record, write_record
from suites.request import Request
from suites.telemetry import Telemetry, annotate

KEPT_JOBS = 50

TIMED = ("latency", "switching")
"""The suites whose measurement wants its device for itself; the others judge outputs."""

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
        # The worker sees its own GPU alone; the caches of compilers stay with the project's.
        environment = {
            "CUDA_VISIBLE_DEVICES": device.uuid,
            "CUDA_MODULE_LOADING": os.environ.get("CUDA_MODULE_LOADING", "LAZY"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.request.cache / "inductor"),
            "TRITON_CACHE_DIR": str(self.request.cache / "triton"),
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
        Refused: a record, a job or an artifact cannot be written; no half-written file is left.
    """
    folder = request.cache / "jobs" / f"{os.getpid()}-{now_ns()}"
    advice = "free some space or choose another results= or cache= folder"
    try:
        ended = _run(request, Stages(request, folder, progress))
    except CannotWrite as error:
        raise Refused(f"cannot write: {error}; {advice}") from None
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise Refused(f"cannot write: {error}; {advice}") from None
    if ended.record.outcome in (OK, record.UNSUPPORTED):
        shutil.rmtree(folder, ignore_errors=True)
        return ended
    _forget_old(folder.parent)
    return replace(ended, log=max(folder.glob("*/log.txt"), key=lambda log: log.stat().st_mtime, default=None))


def _forget_old(jobs: Path) -> None:
    """Leave the folders of the last cells that failed, with their logs, and of those that still run."""
    over = [path for path in jobs.iterdir() if not Path("/proc", path.name.partition("-")[0]).exists()]
    for folder in sorted(over, key=lambda path: path.stat().st_mtime)[:-KEPT_JOBS]:
        shutil.rmtree(folder, ignore_errors=True)


def _run(request: Request, stages: Stages) -> Ended:
    checkpoint = located(request, stages.run)
    if isinstance(checkpoint, Answer):
        # Without the checkpoint the cell has no identity, so there is nothing to write down.
        cell = Cell(release="", **request.cell)
        return Ended(Record(cell, checkpoint.outcome, checkpoint.reason, {}), None, reused=False)
    request = checkpoint
    probed = stages.run("probe", request.job, request.interpreter)
    advice = "; interpreter.main or the backend's own, as in conf/interpreter, must be a Python with numpy"
    facts: dict[str, Any] = probed.result or {
        "release": "", "versions": {}, "outcome": probed.outcome, "reason": f"{probed.reason}{advice}", "form": {}
    }  # fmt: skip
    cell = Cell(release=facts["release"], **request.cell)
    path = path_of(request.results, request.machine.slug, cell)
    measuring = request.until == "measure"
    if measuring and not request.rerun and (earlier := _reusable(path, request)):
        return Ended(_judged_anew(earlier, request), path, reused=True)
    environment = {"machine": request.machine.slug, **request.machine.description, "versions": facts["versions"]}
    parts: dict[str, Any] = {}
    if facts["outcome"] != OK:
        answer = Answer(facts["outcome"], facts["reason"], None, stages.log_tail)
    else:
        # From export on, for it too would disturb whoever measures on this device.
        device, timing = request.machine.device.uuid or "cpu", measuring and request.suite in TIMED
        with holding(device, lambda: stages.progress("wait", "for the device", False), shared=not timing):
            answer, parts = (_layers if request.suite == "layers" else _stages)(request, stages, facts["form"])
        if measuring and answer.outcome == OK:
            # Judging takes no device, and others wait for it.
            answer, parts = _judged(request, stages, answer, parts)
        if answer.outcome == OK and (reason := changed(request)):
            answer = replace(answer, outcome=FAILED, reason=reason)
    ended = Record(
        cell=cell,
        outcome=answer.outcome,
        reason=_without_paths(answer.reason, request),
        environment=environment,
        settings=request.effort,
        stages=stages.seconds,
        command=(Path(sys.executable).name, *sys.orig_argv[1:]),
        measured_at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        log_tail=_without_paths(stages.log_tail, request) if answer.outcome != OK else "",
        **parts,
    )
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
    known = {name: exported.result[name] for name in ("parts", "points", "checked") if name in exported.result}
    known |= exported.result.get("checkpoint", {})
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
        identity = exported.result.get("checkpoint", {}).get("identity", "")
        folder = {"checkpoint": source["checkpoint"], "identity": identity}
        found["judged"] = {"found": found["found"], "inputs": inputs, **folder}
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


def _without_paths(text: str, request: Request) -> str:
    """Logs name the folders they ran in; a record that is shared should not."""
    if model := request.job.get("model", {}).get("path"):
        text = text.replace(model, "<model>")
    for folder in (request.cache, request.results, Path(__file__).resolve().parent.parent, Path.home()):
        text = text.replace(str(folder), f"<{folder.name}>")
    return text
