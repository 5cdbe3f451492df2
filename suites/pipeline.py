"""One request, from a probe of its backend to a written record: export, build, measure, each in a worker."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backends.cache_files import remove_partials
from suites import record
from suites.cell import Cell
from suites.checks import Refused, check_record
from suites.device_lock import holding
from suites.job_folders import end_job, new_job
from suites.launch import Answer, CannotStart, CannotWrite
from suites.locating import changed, located
from suites.machine_folders import without_folders
from suites.maker import HARNESS, SCORING, maker
from suites.record import FAILED, OK, TIMED, Record, path_of, write_record
from suites.request import Request
from suites.reuse import another_device, judged_anew, record_at, reusable
from suites.stages import Progress, Staged, Stages, judged, measure, measure_layers, prepare

WAITING = "for the device, which another run uses"

_said: set[Path] = set()
"""Caches in the folder of another user that a line was printed about."""


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
        names = "interpreter.main or the backend's own, as in conf/interpreter"
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
    advice = "; interpreter.main or the backend's own, as in conf/interpreter, must be a Python with numpy"
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
            staged = (
                measure_layers(request, stages, facts["form"]) if layers else prepare(request, stages, facts["form"])
            )
            more = bool(staged.job) and known is not None and _same_artifacts(known, staged.parts)
            if staged.job and not more and not layers:
                staged = measure(request, stages, staged)
        if more:
            assert known is not None
            return _another(request, stages, staged.job, known)
        if measuring and staged.answer.outcome == OK:
            # Judging takes no device, and others wait for it.
            staged = Staged(*judged(request, stages, staged.answer, staged.parts), staged.job)
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
        command=(Path(sys.executable).name, *sys.orig_argv[1:]),
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
        staged = measure(request, stages, Staged(Answer(OK, "", None, ""), {}, {**job, "process": number}))
    answer, parts = staged.answer, staged.parts
    if answer.outcome == OK:
        answer, parts = judged(request, stages, answer, parts)
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
