"""A comparison as text for a terminal of 80 columns, and as JSON."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from suites.comparing.comparison import ComparedPair, Comparison, Row, condition_text
from suites.comparing.shift import FALSE_VERDICTS, FASTER, LEAST_PROCESSES, NO_DIFFERENCE, NO_VERDICT, POWER, SLOWER
from suites.comparing.sides import Side, counted
from suites.records.suite_version import VERSION
from suites.text import one_line

WIDTH = 80

STYLES = {SLOWER: "red", FASTER: "green", NO_DIFFERENCE: "", NO_VERDICT: "dim"}

COLUMNS = ("shape", "A ms", "B ms", "B/A", f"{1 - FALSE_VERDICTS:.0%} interval", "verdict", "detectable")

UNPAIRED_SHOWN = 3
"""Most cells without a partner that the text names; JSON has all."""


def table_text(comparison: Comparison, color: bool = False) -> str:
    """Return the comparison as text; no line has more than `WIDTH` characters."""
    output = io.StringIO()
    console = Console(
        file=output, width=WIDTH, force_terminal=color, color_system="standard" if color else None, highlight=False,
        emoji=False, markup=False, legacy_windows=False,
    )  # fmt: skip
    for side, name in ((comparison.a, "A"), (comparison.b, "B")):
        console.print(Text(one_line(f"{name}: {side.source}, {counted(len(side.records), 'record')}")))
        for line in side.left_out:
            console.print(Text(one_line(f"   left out: {line}", 400)))
    for pair in comparison.pairs:
        console.print()
        for line in _title(pair):
            console.print(Text(one_line(line), style="bold"))
        console.print(_table(pair.rows))
        for note in pair.notes:
            console.print(Text(one_line(f"note: {note}", 600)))
    console.print()
    for line in _summary(comparison):
        console.print(Text(one_line(line, 1000)))
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines())


def _title(pair: ComparedPair) -> list[str]:
    a, b = pair.pair.a.cell, pair.pair.b.cell
    places = pair.pair.machines
    machine = places[0] if places[0] == places[1] else " and ".join(places)
    ids = [a.id] if a.id == b.id else [f"A {a.id}", f"B {b.id}"]
    counts = sorted({row.processes for row in pair.rows})
    processes = ", ".join(f"{one} and {other} processes" for one, other in counts)
    return [*ids, f"{machine}, {pair.clock}, {processes}"]


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in COLUMNS:
        is_text = name in ("shape", "verdict")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=name != "verdict")
    for row in rows:
        shift = row.shift
        shape = f"{row.batch}x{row.sequence}{' graph' if row.cuda_graph else ''}"
        interval = "unknown" if math.isnan(shift.low) else f"{_ratio(shift.low)}-{_ratio(shift.high)}"
        detectable = "unknown" if math.isnan(shift.smallest) else _percent(shift.smallest)
        verdict = Text(shift.verdict, style=STYLES[shift.verdict])
        table.add_row(shape, _ms(row.a_ms), _ms(row.b_ms), _ratio(shift.ratio), interval, verdict, detectable)
    return table


def _ms(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:.0f}"


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.4g}"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 1 else f"{share:.0%}" if share < 10 else "over 10x"


def _summary(comparison: Comparison) -> Iterator[str]:
    rows = comparison.rows
    verdicts = [row.shift.verdict for row in rows]
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in (SLOWER, FASTER, NO_DIFFERENCE))
    counts += f", {verdicts.count(NO_VERDICT)} {NO_VERDICT}" if NO_VERDICT in verdicts else ""
    yield f"{counted(len(comparison.pairs), 'pair')}, {counted(len(rows), 'row')}: {counts}."
    yield f"{counted(comparison.exceeding, 'row')} slower by more than the tolerance of {comparison.tolerance:.3g}."
    if few := len(rows) - comparison.judged:
        yield (
            f"{counted(few, 'row')} without a verdict, because a side has fewer than {LEAST_PROCESSES} processes. "
            "Measure with repeats=5."
        )
    for name, ids in (("A", comparison.matched.only_a), ("B", comparison.matched.only_b)):
        if ids:
            more = f" and {len(ids) - UNPAIRED_SHOWN} more" if len(ids) > UNPAIRED_SHOWN else ""
            yield f"{counted(len(ids), 'record')} of {name} without a partner: {', '.join(ids[:UNPAIRED_SHOWN])}{more}."
    if comparison.unmatched:
        yield f"{counted(comparison.unmatched, 'pair')} without a shape in common."
    for count, first in comparison.conditions.values():
        yield f"Different conditions: {condition_text(count, first, len(comparison.matched.pairs))}."
    yield (
        f"The {1 - FALSE_VERDICTS:.0%} interval of B/A covers differences between processes, for all rows together. "
        f"detectable: smallest slowdown that these runs find with a probability of {POWER:.0%}."
    )


def to_json(comparison: Comparison) -> str:
    """Return the comparison as JSON. Times are in ms; unknown figures are null."""
    data = {
        "version": VERSION,
        "a": _side(comparison.a, comparison.matched.only_a),
        "b": _side(comparison.b, comparison.matched.only_b),
        "tolerance": comparison.tolerance,
        "confidence": 1 - FALSE_VERDICTS,
        "power": POWER,
        "exit_status": comparison.status,
        "pairs_without_common_shape": comparison.unmatched,
        "conditions": [
            {"name": first.name, "pairs": count, "a": first.a, "b": first.b}
            for count, first in comparison.conditions.values()
        ],
        "pairs": [_pair(pair, comparison.tolerance) for pair in comparison.pairs],
    }
    return json.dumps(data, indent=1, allow_nan=False)


def _side(side: Side, unpaired: Sequence[str]) -> dict[str, object]:
    return {
        "typed": side.typed, "kind": side.kind.name, "source": side.source, "records": len(side.records),
        "commit": side.commit, "left_out": list(side.left_out), "without_partner": list(unpaired),
    }  # fmt: skip


def _pair(pair: ComparedPair, tolerance: float) -> dict[str, object]:
    a, b = pair.pair.a, pair.pair.b
    return {
        "a": {"cell": a.cell.id, "machine": pair.pair.machines[0]},
        "b": {"cell": b.cell.id, "machine": pair.pair.machines[1]},
        "clock": pair.clock,
        "notes": list(pair.notes),
        "rows": [_row(row, tolerance) for row in pair.rows],
    }


def _row(row: Row, tolerance: float) -> dict[str, object]:
    shift = row.shift
    return {
        "batch": row.batch, "sequence": row.sequence, "cuda_graph": row.cuda_graph,
        "a_ms": row.a_ms, "b_ms": row.b_ms, "a_processes": row.processes[0], "b_processes": row.processes[1],
        "ratio": shift.ratio, "low": _number(shift.low), "high": _number(shift.high), "verdict": shift.verdict,
        "smallest_found": _number(shift.smallest), "beyond_tolerance": shift.exceeds(tolerance),
    }  # fmt: skip


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
