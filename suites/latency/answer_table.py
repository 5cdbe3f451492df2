"""The answer in short, above the rows of a table: the fastest row of each shape, and the next other method."""

from __future__ import annotations

from collections.abc import Sequence

from suites.latency.choice import Choice, choose, name_of
from suites.latency.figures import LatencyRow
from suites.latency.ranking import Baseline, rankings
from suites.records.record import Record
from suites.schema.enums import Rank
from suites.statistics.validity import Judged
from suites.tables.markdown import fitted

BASELINE = Baseline()
"""Rows that the last column compares with."""

COLUMNS = (
    "batch",
    "seq",
    "winner",
    "p50 ms",
    "runner-up",
    "its p50 ms",
    "lead",
    "speed-up",
    "notes",
)

LEGEND = f"""\
- **winner**: the fastest row of a shape, plain or graph. **(tie)**: the runner-up may be as fast.
- **runner-up**: the fastest row of another backend or precision. **lead**: its time divided by that of the winner.
- **speed-up**: time of {BASELINE} divided by that of the winner; empty if it was not measured at the shape."""


def answer_table(records: Sequence[Record], scores: Judged, rank: Rank = Rank.gpu) -> str:
    """Return the table for the records of one model; empty without a measured row."""
    rows = [_row(choose(ranking, [])) for ranking in rankings(records, scores, BASELINE, rank)]
    request = rank is Rank.request
    columns = [name.replace("p50", "request p50") if request else name for name in COLUMNS]
    return fitted(columns, rows, 2) if rows else ""


def _row(choice: Choice) -> list[str]:
    ranking, winner = choice.ranking, choice.winner
    shape = [str(ranking.batch), str(ranking.sequence)]
    if winner is None:
        return [*shape, "none", "", "", "", "", "", choice.reason]
    others = ["", "", ""]
    if choice.runner_up is not None and choice.over_runner_up is not None:
        others = [name_of(choice.runner_up.row), _time(choice.runner_up.row), f"{choice.over_runner_up:.2f}"]
    name = name_of(winner.row) + (" (tie)" if choice.is_tie else "")
    return [*shape, name, _time(winner.row), *others, "" if winner.speedup is None else f"{winner.speedup:.2f}", ""]


def _time(row: LatencyRow) -> str:
    return milliseconds(row.best.p50)


def milliseconds(nanoseconds: float) -> str:
    """Return a time in ms with three to five digits."""
    value = nanoseconds / 1e6
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"
