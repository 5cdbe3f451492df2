"""Reuse of an earlier record, so that a cell is not measured again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from suites.asking.request import Request
from suites.records.cell import short_digest
from suites.records.record import OK, UNSUPPORTED, Record, read_record, write_record
from suites.records.suite_version import HARNESS, SCORING
from suites.suite import load_suite
from suites.tasks.task_scores import TaskScores


def record_at(path: Path) -> Record | None:
    """Read the record at `path`; None if it is missing, not valid, or belongs to another cell."""
    try:
        earlier = read_record(path)
    except (OSError, ValueError):
        return None
    return earlier if earlier.cell.id == path.stem else None


def reusable(earlier: Record, request: Request) -> bool:
    """Return whether a record can be reused: same device, same version, same targets, and no failure.

    Timings need the same version of the timing. Other figures need the same version of inputs and scoring.
    """
    same_version = earlier.harness == HARNESS if earlier.timed else earlier.scoring == SCORING
    targets = short_digest(request.judging.targets)
    scored_targets = earlier.result.targets if isinstance(earlier.result, TaskScores) else ""
    same_targets = not scored_targets or scored_targets == targets
    ended_well = earlier.outcome in (OK, UNSUPPORTED)
    return same_version and same_targets and ended_well and not another_device(earlier, request)


def another_device(earlier: Record, request: Request) -> bool:
    """Return whether the record was measured on another device that has the same name."""
    return earlier.environment.uuid != str(request.machine.description["uuid"])


def apply_tolerance(earlier: Record, request: Request) -> Record:
    """Apply the tolerance or threshold of the request to a record. If it changes, the record is written again."""
    if earlier.result is None:
        return earlier
    result = load_suite(request.suite).judged(earlier.result, request.judging)
    if result == earlier.result:
        return earlier
    # The record is in this machine's folder, also if its own field has another name.
    environment = replace(earlier.environment, machine=request.machine.slug)
    judged = replace(earlier, result=result, environment=environment)
    write_record(request.results, judged)
    return judged
