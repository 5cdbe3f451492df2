"""Plan of a sweep: its cells, and totals of cells, processes, engines, time and memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace

from suites.planning.planned_cell import RECORDED, PlannedCell

COLUMN_KEYS = ("backend", "precision", "model")
"""Keys with a column of their own in the table of a plan."""


@dataclass(frozen=True)
class SweepPlan:
    """Plan of all cells of a command, in their order.

    Attributes:
        machines: names of this machine; a machine with a GPU has another name for cells on its CPU.
        bad_files: number of files that are not valid records.
        devices: number of GPUs that share the cells.
    """

    cells: Sequence[PlannedCell]
    machines: Set[str] = frozenset()
    bad_files: int = 0
    devices: int = 1

    def with_seconds(self) -> Iterator[tuple[PlannedCell, float | None]]:
        """Yield each cell with its expected seconds; None if nothing is known. Cells share engines."""
        built: set[str] = set()
        for cell in self.cells:
            yield cell, cell.seconds(cell.engine_built or cell.engine in built)
            if cell.runs and cell.engine and cell.until != "export":
                built.add(cell.engine)

    def by_status(self) -> Counter[str]:
        """Return the number of cells by status."""
        return Counter(cell.status for cell in self.cells)

    def engines(self) -> tuple[int, int]:
        """Return the numbers of engines of the cells that run: those to build, and those in the cache."""
        used = {cell.engine: cell.engine_built for cell in self.cells if cell.runs and cell.engine}
        return sum(not built for built in used.values()), sum(used.values())

    def total_seconds(self) -> float:
        """Return the expected seconds of all cells with an estimate."""
        return sum(seconds or 0.0 for _, seconds in self.with_seconds())

    def unknown(self) -> int:
        """Return the number of cells without an estimate of their time."""
        return sum(seconds is None for _, seconds in self.with_seconds())

    def memory_bytes(self) -> int | None:
        """Return the largest expected memory of a cell that runs; None if it is unknown for all."""
        sizes = [cell.cost.memory_bytes for cell in self.cells if cell.cost and cell.cost.memory_bytes is not None]
        return max(sizes, default=None)

    def sources(self) -> Counter[str]:
        """Return the number of cells that are estimated from the records of each machine."""
        return Counter(cell.cost.machine for cell in self.cells if cell.cost is not None)

    def reasons(self) -> Counter[tuple[str, str]]:
        """Return the number of cells by status and reason, for the cells that do not run."""
        return Counter(
            (cell.status, cell.reason) for cell in self.cells if not cell.runs and cell.status != RECORDED
        )  # fmt: skip


def with_changes(cells: Sequence[PlannedCell], arguments: Sequence[Sequence[str]]) -> list[PlannedCell]:
    """Return the cells with the arguments that not all of them have, except those with a column of their own."""
    shared = set.intersection(*(set(words) for words in arguments)) if arguments else set()
    return [
        replace(cell, changes=[w for w in words if w not in shared and w.partition("=")[0] not in COLUMN_KEYS])
        for cell, words in zip(cells, arguments, strict=True)
    ]
