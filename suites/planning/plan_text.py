"""Text of a plan: a table and totals in at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from suites.planning.planned_cell import RECORDED, RUN, PlannedCell
from suites.planning.sweep_plan import SweepPlan
from suites.text import one_line

WIDTH, LABEL = 80, 10
LONGEST_REASON = 300
UNKNOWN = "?"


def plan_text(plan: SweepPlan) -> str:
    """Return the table of the cells, the totals, and the reasons of the cells that do not run."""
    return "\n".join([*_table(plan), "", *_totals(plan)])


def _table(plan: SweepPlan) -> Iterator[str]:
    rows = [_row(number, cell, seconds) for number, (cell, seconds) in enumerate(plan.with_seconds(), 1)]
    rows = [["cell", "model", "backend", "precision", "status", "min", "memory", "changes"], *rows]
    columns = list(zip(*rows, strict=True))
    if not any(columns[-1][1:]):
        columns.pop()
    widths = [max(map(len, column)) for column in columns]
    # Names of models, then changes, are cut if the table is too wide.
    widths[1] = min(widths[1], 18)
    if len(widths) == 8:
        widths[7] = max(8, min(widths[7], WIDTH - sum(widths[:7]) - 2 * 7))
    widths[1] = max(5, widths[1] - max(0, sum(widths) + 2 * (len(widths) - 1) - WIDTH))
    for row in zip(*columns, strict=True):
        texts = [
            f"{_cut(text, width):>{width}}" if column in (0, 5, 6) else f"{_cut(text, width):<{width}}"
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(texts).rstrip()


def _row(number: int, cell: PlannedCell, seconds: float | None) -> list[str]:
    minutes = memory = ""
    if cell.runs:
        rough = "" if cell.cost is None or cell.cost.same_cell else "~"
        minutes = UNKNOWN if seconds is None else f"{rough}{seconds / 60:.1f}"
        size = cell.cost.memory_bytes if cell.cost else None
        memory = UNKNOWN if size is None else f"{rough}{gigabytes(size)}"
    names = (cell.model, cell.backend, cell.precision, cell.status, minutes, memory, " ".join(cell.changes))
    return [str(number), *map(one_line, names)]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 2]}.."


def _totals(plan: SweepPlan) -> Iterator[str]:
    counts = plan.by_status()
    order = [RUN, RECORDED, *sorted(set(counts) - {RUN, RECORDED})]
    words = {RUN: "to run"}
    cells = ", ".join(f"{counts[status]} {words.get(status, status)}" for status in order if counts[status])
    yield from _item("cells", f"{len(plan.cells)}: {cells}")
    processes = sum(cell.processes for cell in plan.cells if cell.runs)
    yield from _item("processes", f"{processes} measuring processes")
    to_build, in_cache = plan.engines()
    yield from _item("engines", f"{to_build} to build, {in_cache} in the cache")
    yield from _item("time", _time(plan))
    size = plan.memory_bytes()
    yield from _item("memory", UNKNOWN if size is None else f"at most {gigabytes(size)}")
    yield from _item("based on", _sources(plan))
    if fetched := {cell.model for cell in plan.cells if cell.runs and cell.fetches}:
        yield from _item("fetches", f"checkpoint of {', '.join(sorted(fetched))}, not on this machine yet")
    if plan.bad_files:
        yield from _item("skipped", f"{_count(plan.bad_files, 'file')} in results= that are not valid records")
    for (status, reason), number in plan.reasons().items():
        yield from _item(f"{status}:", f"{_count(number, 'cell')}: {one_line(reason, LONGEST_REASON)}")


def _time(plan: SweepPlan) -> str:
    unknown = plan.unknown()
    if not any(cell.runs for cell in plan.cells):
        return "nothing to run"
    if unknown == sum(cell.runs for cell in plan.cells):
        return "unknown: there are no records of similar cells"
    rest = f", and {_count(unknown, 'cell')} of unknown time" if unknown else ""
    return f"about {minutes_text(plan.total_seconds())}{rest}"


def _sources(plan: SweepPlan) -> str:
    texts = [
        f"{'this machine' if machine == plan.machine else machine} ({_count(cells, 'cell')})"
        for machine, cells in sorted(plan.sources().items(), key=lambda item: item[0] != plan.machine)
    ]
    rough = any(cell.cost and not cell.cost.same_cell for cell in plan.cells)
    note = "; ~ marks an estimate from similar cells" if rough else ""
    return f"records of {', '.join(texts)}{note}" if texts else "no records"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _item(label: str, text: str) -> Sequence[str]:
    indent = max(LABEL, len(label)) + 2
    first, *rest = textwrap.wrap(text, WIDTH - indent, break_on_hyphens=False) or [""]
    return [f"{label:<{indent}}{first}", *(" " * indent + line for line in rest)]


def gigabytes(size: int) -> str:
    """Return a size in bytes as text in GB."""
    return f"{size / 1e9:.1f} GB"


def minutes_text(seconds: float) -> str:
    """Return a time as text, rounded to minutes; shorter times are "less than a minute"."""
    if seconds < 60:
        return "less than a minute" if seconds < 45 else "1 min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
