"""Limits that a row must meet, and how far a row is from meeting them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from suites.latency.figures import LatencyRow
from suites.statistics.stats import BEYOND


@dataclass(frozen=True)
class Quantity:
    """A figure of a row that can be limited.

    Attributes:
        name: name in a text.
        unit: unit with a space before it; empty for a number without unit.
        digits: decimals.
        figure: returns the figure; None if it is not known.
        unknown: returns the reason why it is not known.
        is_least: whether the limit is the smallest allowed value instead of the largest.
    """

    name: str
    unit: str
    digits: int
    figure: Callable[[LatencyRow], float | None]
    unknown: Callable[[LatencyRow], str]
    is_least: bool = False

    def text(self, value: float) -> str:
        return f"{value:,.{self.digits}f}{self.unit}"


def p99_ms(row: LatencyRow) -> float | None:
    """Return the 99th percentile of the times, plain or CUDA graph, that `row.best` is the median of."""
    time = row.percentile(99, row.graph, row.ranked_phase)
    return None if time is None else time / 1e6


def task_loss(row: LatencyRow) -> float | None:
    """Return the largest loss over the tasks that decide validity; None without such a task."""
    losses = [scores.loss for scores in row.tasks.values() if scores.gates]
    return max(losses, default=None)


def memory_mb(row: LatencyRow) -> float | None:
    return None if row.peak_bytes is None else row.peak_bytes / 1e6


def _too_few_samples(row: LatencyRow) -> str:
    needed = BEYOND * 100
    return f"it needs {needed} samples, and there are {row.best.count}; measure with suite.min_samples={needed}"


def _no_task(row: LatencyRow) -> str:
    drift = f" ({', '.join(sorted(row.tasks))} measures only drift)" if row.tasks else ""
    return f"no task with labels or scores judged this row{drift}; run suite=accuracy with such a task, e.g. task=stsb"


QUANTITIES: Mapping[str, Quantity] = {
    "p50_ms": Quantity("p50", " ms", 3, lambda row: row.best.p50 / 1e6, lambda row: "it was not measured"),
    "p99_ms": Quantity("p99", " ms", 3, p99_ms, _too_few_samples),
    "task_loss": Quantity("task loss", "", 4, task_loss, _no_task),
    "cosine": Quantity("cosine", "", 5, lambda row: row.cosine, lambda row: "no output was compared", True),
    "memory_mb": Quantity("memory", " MB", 0, memory_mb, lambda row: "no reading of the memory"),
}
"""Quantities by the name of their option, with _ instead of -."""


@dataclass(frozen=True)
class Limit:
    """A quantity and its largest (or smallest) allowed value. `option` is its key in `QUANTITIES`."""

    option: str
    bound: float

    def miss(self, row: LatencyRow) -> Miss | None:
        """Return how a row fails this limit; None if the row meets it. An unknown figure fails."""
        quantity = QUANTITIES[self.option]
        value, typed = quantity.figure(row), f"--{self.option.replace('_', '-')} {self.bound:g}"
        if value is None:
            return Miss(f"{quantity.name} is not known for {typed}: {quantity.unknown(row)}", float("inf"))
        excess = (self.bound - value) if quantity.is_least else (value - self.bound)
        if excess <= 0:
            return None
        side = "below" if quantity.is_least else "above"
        scale = 1 - self.bound if quantity.is_least else self.bound
        text = f"{quantity.name} {quantity.text(value)} is {quantity.text(excess)} {side} {typed}"
        return Miss(text, excess / max(scale, 1e-9))


@dataclass(frozen=True)
class Miss:
    """A limit that a row does not meet.

    Attributes:
        excess: distance from the limit, relative to it; infinite if the figure is not known.
    """

    text: str
    excess: float


def misses(row: LatencyRow, limits: Sequence[Limit]) -> list[Miss]:
    """Return the limits that a row does not meet."""
    return [miss for limit in limits if (miss := limit.miss(row)) is not None]


def distance(missed: Sequence[Miss]) -> tuple[bool, int, float]:
    """Return a sort key: rows with known figures first, then few missed limits, then a small excess."""
    excesses = [miss.excess for miss in missed]
    known = [excess for excess in excesses if excess != float("inf")]
    return len(known) < len(excesses), len(excesses), sum(known)
