"""Rows of a comparison: one for each pair, shape and CUDA graph setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from suites.comparing.conditions import Difference, differences, effort_differences
from suites.comparing.pairing import Pair, Pairs, cell_differences
from suites.comparing.shift import (
    FASTER,
    LEAST_PROCESSES,
    NO_DIFFERENCE,
    NO_VERDICT,
    SLOWER,
    Shift,
    has_enough,
    shift_of,
)
from suites.comparing.sides import Side
from suites.records.measurement import GPU, LATENCY
from suites.records.record import Record
from suites.schema.refusals import Refused
from suites.statistics.noise import main_measurements
from suites.statistics.winners import power_note, why_excluded

Setting = tuple[int, int, bool]
"""Batch, sequence, and whether a CUDA graph is replayed."""

VERDICT_ORDER = (SLOWER, FASTER, NO_DIFFERENCE, NO_VERDICT)


@dataclass(frozen=True)
class Row:
    """Comparison of a pair at one shape, with or without CUDA graph.

    Attributes:
        a_ms, b_ms: geometric means of the processes' medians, in ms.
        processes: number of processes of each side.
    """

    batch: int
    sequence: int
    cuda_graph: bool
    a_ms: float
    b_ms: float
    processes: tuple[int, int]
    shift: Shift

    @property
    def is_judged(self) -> bool:
        """Whether both sides have enough processes for a verdict."""
        return has_enough(*self.processes)


@dataclass(frozen=True)
class ComparedPair:
    """Rows of a pair, sorted by shape.

    Attributes:
        clock: "GPU time" or "latency on the host".
        notes: differences and disturbances that a reader must know.
    """

    pair: Pair
    clock: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def order(self) -> tuple[int, str, str]:
        """Key for sorting: pairs with a slower row first, then pairs with a faster row."""
        verdicts = [VERDICT_ORDER.index(row.shift.verdict) for row in self.rows]
        return min(verdicts), self.pair.a.cell.id, self.pair.b.cell.id


@dataclass(frozen=True)
class Comparison:
    """Comparison of two sides.

    Attributes:
        tolerance: share by which B may be slower before the comparison fails.
        unmatched: number of pairs without a common shape.
        conditions: by name of the condition, the number of pairs that differ in it, and one of the differences.
    """

    a: Side
    b: Side
    tolerance: float
    pairs: tuple[ComparedPair, ...]
    matched: Pairs
    unmatched: int
    conditions: Mapping[str, tuple[int, Difference]]

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for pair in self.pairs for row in pair.rows)

    @property
    def judged(self) -> int:
        """Number of rows with enough processes for a verdict."""
        return sum(row.is_judged for row in self.rows)

    @property
    def exceeding(self) -> int:
        """Number of rows that are slower by more than the tolerance."""
        return sum(row.shift.exceeds(self.tolerance) for row in self.rows)

    @property
    def status(self) -> int:
        """Exit status: 1 if a row is slower by more than the tolerance, otherwise 0."""
        return int(self.exceeding > 0)


def compare_sides(a: Side, b: Side, matched: Pairs, tolerance: float, any_conditions: bool) -> Comparison:
    """Compare all pairs.

    Args:
        any_conditions: whether records of different devices, drivers, power limits or clock policies are compared.

    Raises:
        Refused: conditions differ, or no pair has a shape in common.
    """
    conditions = _conditions(matched.pairs)
    if conditions and not any_conditions:
        raise Refused(_refusal(conditions, len(matched.pairs)))
    common = {index: settings for index, pair in enumerate(matched.pairs) if (settings := _common_settings(pair))}
    if not common:
        one, other = matched.pairs[0].a, matched.pairs[0].b
        raise Refused(
            f"no shape in common: A has {_shapes(one)} and B has {_shapes(other)}; measure both sides with the same "
            "batch= and sequence= and on the same kind of device"
        )
    judged = sum(has_enough(*map(len, sides)) for settings in common.values() for sides in settings.values())
    compared = [_compared(matched.pairs[index], settings, max(judged, 1)) for index, settings in common.items()]
    unmatched = len(matched.pairs) - len(common)
    ordered = tuple(sorted(compared, key=lambda pair: pair.order))
    return Comparison(a, b, tolerance, ordered, matched, unmatched, conditions)


Medians = Mapping[Setting, tuple[Sequence[float], Sequence[float]]]
"""Medians of the processes of A and of B in ns, by setting."""


def _common_settings(pair: Pair) -> Medians:
    if _uses_gpu_clock(pair.a) != _uses_gpu_clock(pair.b):
        return {}
    a, b = process_medians(pair.a), process_medians(pair.b)
    return {setting: (a[setting], b[setting]) for setting in sorted(a, key=_size) if setting in b}


def process_medians(record: Record) -> dict[Setting, list[float]]:
    """Return the median of each process in ns, by shape and CUDA graph setting: of GPU times, or of host latencies."""
    medians: dict[Setting, list[float]] = {}
    for m in main_measurements(record.measurements):
        medians.setdefault((m.batch, m.sequence, m.cuda_graph), []).append(float(np.median(m.samples)))
    return medians


def _size(setting: Setting) -> tuple[int, Setting]:
    return setting[0] * setting[1], setting


def _uses_gpu_clock(record: Record) -> bool:
    return any(m.phase == GPU for m in record.measurements)


def _compared(pair: Pair, settings: Medians, judged: int) -> ComparedPair:
    rows = []
    for (batch, sequence, graph), (a, b) in settings.items():
        a_ms, b_ms = (float(np.exp(np.mean(np.log(side)))) / 1e6 for side in (a, b))
        rows.append(Row(batch, sequence, graph, a_ms, b_ms, (len(a), len(b)), shift_of(a, b, judged)))
    clock = "GPU time" if _uses_gpu_clock(pair.a) else "latency on the host"
    return ComparedPair(pair, clock, tuple(rows), tuple(_notes(pair, settings)))


def _notes(pair: Pair, settings: Medians) -> Iterator[str]:
    if pair.a.cell.id != pair.b.cell.id:
        yield f"cells differ in {'; '.join(cell_differences(pair.a, pair.b))}"
    if efforts := effort_differences(pair.a, pair.b):
        yield f"settings differ in {'; '.join(map(str, efforts))}"
    shapes = {(batch, sequence) for batch, sequence, _ in settings}
    for side, record in (("A", pair.a), ("B", pair.b)):
        phase = GPU if _uses_gpu_clock(record) else LATENCY
        measured = [m for m in record.measurements if (*m.shape, m.cuda_graph) in settings and m.phase == phase]
        if reasons := why_excluded(measured, record.cell.device == "cpu"):
            yield f"{side} was disturbed: {'; '.join(reasons)}"
        if note := power_note(record, shapes):
            yield f"{side} was {note}"
    fewest = min(len(side) for sides in settings.values() for side in sides)
    if fewest < LEAST_PROCESSES:
        yield f"no verdict: a side has {fewest} process{'es' if fewest > 1 else ''}, and {LEAST_PROCESSES} are needed"


def _conditions(pairs: Sequence[Pair]) -> dict[str, tuple[int, Difference]]:
    conditions: dict[str, tuple[int, Difference]] = {}
    for pair in pairs:
        for difference in differences(pair.a, pair.b):
            count, first = conditions.get(difference.name, (0, difference))
            conditions[difference.name] = count + 1, first
    return conditions


def condition_text(count: int, first: Difference, pairs: int) -> str:
    """Return a difference with the number of pairs that have it, of all `pairs`."""
    if pairs == 1:
        return str(first)
    return f"{first} ({'for example, ' if count > 1 else ''}in {count} of {pairs} pairs)"


def _refusal(conditions: Mapping[str, tuple[int, Difference]], pairs: int) -> str:
    shown = "; ".join(condition_text(*found, pairs) for found in conditions.values())
    return (
        f"the sides were not measured under the same conditions: {shown}; measure both sides on one device, or add "
        "--allow-other-conditions"
    )


def _shapes(record: Record) -> str:
    settings = sorted({(m.batch, m.sequence) for m in main_measurements(record.measurements)})
    clock = "GPU times" if _uses_gpu_clock(record) else "host latencies"
    return f"{', '.join(f'{batch}x{sequence}' for batch, sequence in settings) or 'none'} ({clock})"
