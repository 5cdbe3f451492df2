"""Whether an earlier record answers a request, so that nothing is measured again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from suites.cell import short_digest
from suites.layers import first_past
from suites.maker import HARNESS, SCORING
from suites.record import OK, UNSUPPORTED, Record, read_record, write_record
from suites.request import Request


def record_at(path: Path) -> Record | None:
    """The record of the cell that `path` is named after, if there is one that can be used."""
    try:
        earlier = read_record(path)
    except (OSError, ValueError):
        return None
    return earlier if earlier.cell.id == path.stem else None


def reusable(earlier: Record, request: Request) -> bool:
    """Whether a record answered the question on this very device by the same version; failures are tried again.

    Timings need the same version of the timing, other figures the same version of inputs and judgement.
    """
    same_version = earlier.harness == HARNESS if earlier.timed else earlier.scoring == SCORING
    wanted = short_digest(request.task["targets"])
    same_targets = bool(earlier.scores.get("targets", wanted) == wanted)
    ended_well = earlier.outcome in (OK, UNSUPPORTED)
    return same_version and same_targets and ended_well and not another_device(earlier, request)


def another_device(earlier: Record, request: Request) -> bool:
    """Whether the record is of another device of the same name."""
    return bool(earlier.environment.get("uuid") != request.machine.description["uuid"])


def judged_anew(earlier: Record, request: Request) -> Record:
    """A record under the tolerance or threshold of the request, written if it was judged by another."""
    scores = dict(earlier.scores)
    if "tolerance" in scores:
        scores["tolerance"] = request.task["tolerance"]
    if "threshold" in scores:
        scores["threshold"] = request.task["threshold"]
        scores["first"] = first_past(scores["layers"], scores["threshold"])
    if scores == earlier.scores:
        return earlier
    # It lies in this machine's folder, whatever it says itself.
    environment = {**earlier.environment, "machine": request.machine.slug}
    judged = replace(earlier, scores=scores, environment=environment)
    write_record(request.results, judged)
    return judged
