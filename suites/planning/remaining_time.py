"""Remaining time of a sweep, from past records and from the cells of the sweep that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from suites.planning.plan_text import about

CORRECTIONS = (0.2, 5.0)
"""Smallest and largest factor that corrects estimates by the cells that have ended."""

FIRST, LATER = "first", "later"
"""Kinds of turns: the first process of a cell with all its stages, and one more process."""


@dataclass
class CellTurns:
    """Turns of one cell that have not ended.

    Attributes:
        expected: expected seconds of a turn by kind; empty if nothing is known.
        first: number of first turns that have not ended: 1 or 0.
        later: number of later turns that have not ended.
    """

    expected: dict[str, float]
    first: int
    later: int


@dataclass
class RemainingTime:
    """Remaining time of a sweep.

    Args:
        cells: turns of each cell, in their order.
    """

    cells: Sequence[CellTurns]
    _actual: dict[str, list[float]] = field(default_factory=lambda: {FIRST: [], LATER: []})
    _compared: list[tuple[float, float]] = field(default_factory=list)

    def ended(self, index: int, kind: str, seconds: float, typical: bool = True) -> None:
        """Add a turn that ended.

        Args:
            typical: whether other cells can be expected to take as long. A reused or failed cell is not typical.
        """
        cell = self.cells[index]
        setattr(cell, kind, max(0, getattr(cell, kind) - 1))
        if typical:
            self._actual[kind].append(seconds)
            if kind in cell.expected:
                self._compared.append((cell.expected[kind], seconds))

    def drop(self, index: int) -> None:
        """Remove the remaining turns of a cell, because it has ended."""
        self.cells[index].first = self.cells[index].later = 0

    def seconds(self) -> float | None:
        """Return the expected seconds of all turns that have not ended; None if nothing is known about one of them."""
        total = 0.0
        for cell in self.cells:
            for kind, turns in ((FIRST, cell.first), (LATER, cell.later)):
                if not turns:
                    continue
                expected = self._expected(cell, kind)
                if expected is None:
                    return None
                total += turns * expected
        return total

    def text(self) -> str:
        """Return the remaining time as text, such as "about 3 min left"; "" if it is unknown."""
        seconds = self.seconds()
        return "" if seconds is None else f"{about(seconds)} left"

    def _expected(self, cell: CellTurns, kind: str) -> float | None:
        if kind in cell.expected:
            return cell.expected[kind] * self._correction()
        # A later turn takes at most as long as a first turn.
        actual = self._actual[kind] or self._actual[FIRST]
        return sum(actual) / len(actual) if actual else None

    def _correction(self) -> float:
        expected, actual = (sum(values) for values in zip(*self._compared, strict=True)) if self._compared else (0, 0)
        least, most = CORRECTIONS
        return min(most, max(least, actual / expected)) if expected else 1.0
