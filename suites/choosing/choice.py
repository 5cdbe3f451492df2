"""The choice of a row for one workload and shape: winner, runner-up, and how sure the order is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from suites.choosing.limits import Limit, distance, misses
from suites.latency.figures import LatencyRow, verdicts
from suites.latency.ranking import RankedRow, Ranking
from suites.statistics.stats import confidence_slower, slower
from suites.statistics.winners import no_winner


@dataclass(frozen=True)
class Choice:
    """The choice for one workload and shape.

    Attributes:
        winner: the fastest row that meets the limits; None if none can be named.
        runner_up: the fastest row of another backend or precision that meets the limits; or with other options, if
            there is only one backend and precision. None if no other row meets the limits.
        variants: number of rows of the winner's backend and precision, with other options, that tie with it.
        reason: why there is no winner; empty if there is one.
        nearest: the row that is nearest to the limits that no row meets, and by how much it fails; empty otherwise.
    """

    ranking: Ranking
    winner: RankedRow | None = None
    runner_up: RankedRow | None = None
    variants: int = 0
    reason: str = ""
    nearest: str = ""

    @property
    def confidence(self) -> float | None:
        """Probability that the winner is faster than the runner-up; None if the spread between processes is unknown."""
        if self.winner is None or self.runner_up is None:
            return None
        time, other = self.winner.row.contender.time, self.runner_up.row.contender.time
        return confidence_slower(other, time) if time.freedom and other.freedom else None

    @property
    def is_tie(self) -> bool:
        """Whether winner and runner-up are not told apart."""
        if self.winner is None or self.runner_up is None:
            return False
        return not _told_apart(self.runner_up.row, self.winner.row)

    @property
    def over_runner_up(self) -> float | None:
        """Time of the runner-up divided by that of the winner."""
        if self.winner is None or self.runner_up is None:
            return None
        return self.runner_up.row.best.p50 / self.winner.row.best.p50

    @property
    def result(self) -> str:
        """One of "winner", "tie" and "none"."""
        return "none" if self.winner is None else "tie" if self.is_tie else "winner"


def name_of(row: LatencyRow) -> str:
    """Return backend and precision, and whether a CUDA graph is replayed."""
    return f"{row.record.cell.backend} {row.record.cell.precision}{', CUDA graph' if row.graph else ''}"


def choose(ranking: Ranking, limits: Sequence[Limit]) -> Choice:
    """Return the choice among the valid rows of a ranking that meet all limits."""
    valid = [item for item in ranking.rows if not item.row.problems]
    if not valid:
        first = ranking.rows[0].row
        return Choice(ranking, reason=f"no row is valid; {name_of(first)}: {'; '.join(first.problems)}")
    meeting = [item for item in valid if not misses(item.row, limits)]
    if not meeting:
        return Choice(ranking, reason="no row meets the limits", nearest=_nearest(valid, limits))
    if len(meeting) == 1 and len(valid) > 1:
        return Choice(ranking, meeting[0])
    marked = zip(meeting, verdicts([item.row for item in meeting]), strict=True)
    winners = [item for item, verdict in marked if verdict.winners]
    if not winners:
        return Choice(ranking, reason=_undecided(meeting))
    return _between(ranking, meeting, winners)


def _between(ranking: Ranking, meeting: Sequence[RankedRow], winners: Sequence[RankedRow]) -> Choice:
    best = winners[0]  # Rows of a ranking are sorted by time.
    others = [item for item in meeting if _kind(item) != _kind(best)] or [item for item in meeting if item is not best]
    runner_up = min(others, key=lambda item: (bool(item.row.contender.excluded), item.row.best.p50))
    variants = sum(_kind(item) == _kind(best) for item in winners) - 1
    return Choice(ranking, best, runner_up, variants)


def _kind(item: RankedRow) -> tuple[str, str]:
    return item.row.record.cell.backend, item.row.record.cell.precision


def _told_apart(row: LatencyRow, faster: LatencyRow) -> bool:
    time, other = row.contender.time, faster.contender.time
    return bool(time.freedom and other.freedom) and slower(time, other)


def _undecided(rows: Sequence[RankedRow]) -> str:
    """Return why no row can be named, with the fastest row and its disturbance."""
    reason, first = no_winner([item.row.contender for item in rows]), rows[0].row
    because = f" ({first.contender.excluded})" if first.contender.excluded else ""
    return f"{reason}; the lowest time is that of {name_of(first)}{because}"


def _nearest(rows: Sequence[RankedRow], limits: Sequence[Limit]) -> str:
    missed = [(item.row, misses(item.row, limits)) for item in rows]
    row, failed = min(missed, key=lambda entry: distance(entry[1]))
    return f"{name_of(row)}: {'; '.join(miss.text for miss in failed)}"
