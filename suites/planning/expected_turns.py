"""Turns of a cell that a run expects, for the remaining time. It reads no checkpoint, so it is fast."""

from __future__ import annotations

from suites.asking.request import Request
from suites.planning.estimate import estimate
from suites.planning.past_runs import PastRuns
from suites.planning.planned_cell import REUSED_S, earlier_record
from suites.planning.remaining_time import FIRST, LATER, CellTurns
from suites.running.engine_notes import engine_key, is_noted
from suites.running.pipeline import process_count
from suites.schema.refusals import Refused


def expected_turns(request: Request, past: PastRuns) -> CellTurns:
    """Return the turns of a request with the expected seconds; without seconds if no record is similar."""
    measures = request.until == "measure"
    processes = request.repeats if measures else 1
    try:
        earlier = earlier_record(request, past, None) if measures else None
        cost = estimate(request, past)
    except Refused:  # the folder of the records cannot be read; the cell itself is refused if it cannot be written
        return CellTurns({}, 1, processes - 1)
    if earlier is not None:
        processes -= min(process_count(earlier), processes)
        if not processes:
            return CellTurns({FIRST: REUSED_S}, 1, 0)
    if cost is None:
        return CellTurns({}, 1, processes - 1)
    key = engine_key(request)
    built = bool(key) and is_noted(request.cache, key)
    return CellTurns({FIRST: cost.first_s(request.until, built), LATER: cost.process_s}, 1, processes - 1)
