"""Run one request: probe its backend, export, build and measure, each in a worker, and write the record."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from backends.cache_files import remove_partials
from backends.json_codec import from_json, to_json
from suites.asking.request import Request
from suites.records import record
from suites.records.artifacts import Artifacts
from suites.records.cell import Cell
from suites.records.parts import Environment, Process, Settings
from suites.records.record import FAILED, OK, Record, record_path, write_record
from suites.records.suite_version import HARNESS, SCORING, maker, typed_command
from suites.running.device_lock import lock_device
from suites.running.job import Probed, ProbeJob
from suites.running.job_folders import end_job, new_job
from suites.running.launch import Answer, CannotStart, CannotWrite
from suites.running.locating import checkpoint_changed, locate_checkpoint
from suites.running.machine_folders import without_folders
from suites.running.reuse import another_device, apply_tolerance, record_at, reusable
from suites.running.rounds import measure_rounds
from suites.running.stages import (
    Progress,
    RecordParts,
    StageResult,
    Stages,
    measure,
    prepare,
    score,
)
from suites.schema.refusals import Refused, check_record
from suites.suite import is_timed

WAITING = "for the device, which another run uses"

_reported_caches: set[Path] = set()
"""Caches in the folder of another user. A line about each of them was printed already."""


@dataclass(frozen=True)
class CellResult:
    """Result of a cell so far.

    Attributes:
        path: path of the record; None if the request does not measure.
        reused: whether the record was written by an earlier run.
        log: path of the last log of a cell that failed.
        another: measures in one more fresh process; None after all requested processes have measured. The cells of a
            sweep take turns, so that slow drift of the machine does not favour one of them.
    """

    record: Record
    path: Path | None
    reused: bool
    log: Path | None = None
    another: Callable[[], CellResult] | None = None


def run_request(request: Request, progress: Progress) -> CellResult:
    """Run a request, or return the record that an earlier run on the same device wrote.

    Raises:
        Refused: an interpreter cannot be started, or a record, a job or an artifact cannot be written. No half-written
            file remains.
    """
    if request.cache.name == f"uid-{os.geteuid()}" and request.cache not in _reported_caches:
        _reported_caches.add(request.cache)
        progress("cache", f"other users can write {request.cache.parent}; using {request.cache.name} in it", True)
    remove_partials(request.cache)  # of a run that was killed
    try:
        stages = Stages(request, new_job(request.cache), progress)
    except OSError as error:
        raise _cannot_write(request, error) from None
    return _finish(stages, lambda: _run(request, stages))


def run_to_end(request: Request, progress: Progress) -> CellResult:
    """Run a request in all requested processes, one after another."""
    ended = run_request(request, progress)
    while ended.another is not None:
        ended = ended.another()
    return ended


def _cannot_write(request: Request, error: Exception) -> Refused:
    folders = f"results={request.results} or cache={request.cache}"
    return Refused(f"cannot write: {error}; free some space there or choose another folder than {folders}")


def _finish(stages: Stages, work: Callable[[], CellResult]) -> CellResult:
    """Return the result of `work`. Remove the job folder if it is not needed any more; add the log if the cell failed.

    Raises:
        Refused: the interpreter does not start, or a file cannot be written.
    """
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
    """Return the log of the last stage; None if the folder was removed meanwhile."""
    try:
        return max(folder.glob("*/log.txt"), key=lambda log: log.stat().st_mtime, default=None)
    except OSError:
        return None


def _run(request: Request, stages: Stages) -> CellResult:
    checkpoint = locate_checkpoint(request, stages.run)
    if isinstance(checkpoint, Answer):
        # Without the checkpoint the cell has no identity, so no record can be written.
        cell = Cell(release="", **request.cell)
        return CellResult(Record(cell, checkpoint.outcome, checkpoint.reason, Environment("")), None, reused=False)
    request = checkpoint
    probed = probe(request, stages)
    cell = Cell(release=probed.release, **request.cell)
    path = record_path(request.results, request.machine.slug, cell)
    measuring = request.until == "measure"
    if measuring:
        check_record(request.results, path)
    earlier = record_at(path) if measuring else None
    reusable_record = earlier if earlier is not None and not request.rerun and reusable(earlier, request) else None
    if reusable_record is not None and process_count(reusable_record) >= request.repeats:
        return CellResult(apply_tolerance(reusable_record, request), path, reused=True)
    environment = from_json(
        Environment,
        {**request.machine.description, "machine": request.machine.slug, "versions": probed.versions},
        "environment",
    )
    staged, extends = StageResult(probed.outcome, probed.reason), False
    if probed.form is not None:
        # The export runs under the lock too, because it would disturb another run that measures on this device.
        with _device(request, stages):
            staged = prepare(request, stages, probed.form)
            extends = (
                staged.job is not None
                and reusable_record is not None
                and _same_artifacts(reusable_record, staged.parts.artifacts)
            )
            if not extends:
                staged = measure_rounds(request, stages, probed.form, staged)
        if extends:
            assert reusable_record is not None
            return _measure_again(request, stages, staged, reusable_record)
        if measuring and staged.outcome == OK:
            # Scoring does not use the device, so it runs after the lock is released.
            staged = score(request, stages, staged)
        if staged.outcome == OK and (reason := checkpoint_changed(request)):
            staged = replace(staged, outcome=FAILED, reason=reason)
    new_record = _record_of(Record(cell, staged.outcome, staged.reason, environment), request, stages, staged)
    if earlier is not None and another_device(earlier, request):
        replaced_uuid = earlier.environment.uuid
        stages.progress("record", f"replaces the record of another device of the same name, {replaced_uuid}", True)
    written_path = write_record(request.results, new_record) if measuring else None
    return _with_next_process(request, stages, staged, CellResult(new_record, written_path, reused=False))


def _record_of(record: Record, request: Request, stages: Stages, staged: StageResult) -> Record:
    """Return a record with the results and settings of a run, without paths of folders."""
    filled = replace(
        record,
        settings=from_json(Settings, to_json(request.effort), "settings"),
        stages=stages.seconds,
        command=typed_command(),
        measured_at=_now(),
        log_tail=stages.log_tail if staged.outcome != OK else "",
        maker=maker(),
        harness=HARNESS,
        scoring=SCORING,
        **vars(staged.parts),
    )
    return without_folders(filled, request)


def probe(request: Request, stages: Stages) -> Probed:
    """Ask the backend in its interpreter whether it can run the request. A failed probe is an answer too."""
    answer = stages.run(ProbeJob(request.backend, request.spec, request.lengths.passes), request.interpreter)
    if answer.result is not None:
        return answer.result
    advice = "; interpreter.main or the backend's own, as in inference-suites.yaml, must be a Python with numpy"
    return Probed(outcome=answer.outcome, reason=f"{answer.reason}{advice}")


@contextlib.contextmanager
def _device(request: Request, stages: Stages) -> Iterator[None]:
    """Hold the lock of the device: exclusive for a suite that takes times, shared with other runs otherwise."""
    device, timing = request.machine.device.uuid or "cpu", request.until == "measure" and is_timed(request.suite)
    with lock_device(device, lambda: stages.progress("wait", WAITING, True), shared=not timing):
        yield


def process_count(earlier: Record) -> int:
    """Return the number of fresh processes that measured."""
    return 1 + len(earlier.processes)


def _with_next_process(request: Request, stages: Stages, staged: StageResult, ended: CellResult) -> CellResult:
    """Set `another` if the request needs more processes than have measured."""
    if ended.path is None or ended.record.outcome != OK or process_count(ended.record) >= request.repeats:
        return ended
    return replace(
        ended, another=lambda: _finish(stages, lambda: _measure_again(request, stages, staged, ended.record))
    )


def _measure_again(request: Request, stages: Stages, prepared: StageResult, earlier: Record) -> CellResult:
    """Measure in one more process and add its measurements to the record. A failure of that process fails the cell."""
    number = process_count(earlier)
    with _device(request, stages):
        staged = measure(request, stages, replace(prepared, parts=RecordParts()), number)
    if staged.outcome == OK:
        staged = score(request, stages, staged)
    process = Process(number, _now(), staged.parts.facts)
    extended = replace(
        earlier,
        outcome=staged.outcome,
        reason=f"process {number + 1} of {request.repeats}: {staged.reason}" if staged.outcome != OK else "",
        measurements=earlier.measurements + staged.parts.measurements,
        checks=earlier.checks + staged.parts.checks,
        processes=(*earlier.processes, process),
        stages=stages.seconds,
        log_tail=stages.log_tail if staged.outcome != OK else "",
    )
    extended = without_folders(extended, request)
    written_path = write_record(request.results, extended)
    return _with_next_process(request, stages, prepared, CellResult(extended, written_path, reused=False))


def _same_artifacts(earlier: Record, artifacts: Artifacts) -> bool:
    """Return whether the artifacts are the same as those of the earlier record, byte for byte."""
    return artifacts.digests() == earlier.artifacts.digests()


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
