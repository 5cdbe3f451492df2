"""Text of a plan: a table and totals in at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from suites.planning.planned_cell import RECORDED, REFUSED, RUN, PlannedCell
from suites.planning.sweep_plan import SweepPlan
from suites.text import one_line

WIDTH, LABEL = 80, 10
LONGEST_REASON = 300
UNKNOWN = "?"

LONGEST = {"cell": 5, "model": 16, "backend": 13, "precision": 9, "status": 11, "min": 6, "memory": 8}
"""Longest text of each column of the table. Longer texts are cut."""

RIGHT = ("cell", "min", "memory")
"""Columns with numbers."""


def plan_text(plan: SweepPlan) -> str:
    """Return the table of the cells, the totals, and the reasons of the cells that do not run."""
    return "\n".join([*_table(plan), "", *_totals(plan)])


def _table(plan: SweepPlan) -> Iterator[str]:
    """Yield the lines of the table. A model that all cells share is above it; long changes are below their row."""
    rows = [_row(number, cell, seconds) for number, (cell, seconds) in enumerate(plan.with_seconds(), 1)]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(LONGEST)}
    if len(rows) > 1 and len(set(columns["model"])) == 1:
        yield f"model: {_cut(columns.pop('model')[0], WIDTH - 7)}"
    changes = [" ".join(map(one_line, cell.changes)) for cell in plan.cells]
    widths = {name: min(LONGEST[name], max(map(len, (name, *texts)))) for name, texts in columns.items()}
    table_width = sum(widths.values()) + 2 * len(widths)
    in_column = max(map(len, ("changes", *changes))) <= WIDTH - table_width
    yield _line(dict(zip(columns, columns, strict=True)), widths, "changes" if in_column and any(changes) else "")
    for number, change in enumerate(changes):
        yield _line({name: texts[number] for name, texts in columns.items()}, widths, change if in_column else "")
        if change and not in_column:
            indent = " " * (widths["cell"] + 2)
            yield from textwrap.wrap(change, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _line(texts: Mapping[str, str], widths: Mapping[str, int], change: str) -> str:
    aligned = [
        f"{_cut(text, widths[name]):{'>' if name in RIGHT else '<'}{widths[name]}}" for name, text in texts.items()
    ]
    return "  ".join([*aligned, change]).rstrip()


def _row(number: int, cell: PlannedCell, seconds: float | None) -> list[str]:
    minutes = memory = ""
    if cell.runs:
        rough = "" if cell.cost is None or cell.cost.same_cell else "~"
        minutes = UNKNOWN if seconds is None else f"{rough}{seconds / 60:.1f}"
        size = cell.cost.memory_bytes if cell.cost else None
        memory = UNKNOWN if size is None else f"{rough}{gigabytes(size)}"
    return [str(number), *map(one_line, (cell.model, cell.backend, cell.precision, cell.status, minutes, memory))]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 2]}.."


def _totals(plan: SweepPlan) -> Iterator[str]:
    counts = plan.by_status()
    order = [RUN, RECORDED, *sorted(set(counts) - {RUN, RECORDED})]
    words = {RUN: "to run"}
    cells = ", ".join(f"{counts[status]} {words.get(status, status)}" for status in order if counts[status])
    yield from _item("cells", f"{len(plan.cells)}: {cells}")
    processes = sum(cell.processes for cell in plan.cells if cell.runs)
    yield from _item("processes", f"{processes} measuring process{'' if processes == 1 else 'es'}")
    to_build, in_cache = plan.engines()
    yield from _item("engines", f"{to_build} to build, {in_cache} in the cache")
    yield from _item("time", _time(plan))
    size = plan.memory_bytes()
    yield from _item("memory", UNKNOWN if size is None else f"at most {gigabytes(size)}")
    yield from _item("based on", _sources(plan))
    if fetched := {cell.model for cell in plan.cells if cell.runs and cell.fetches}:
        yield from _item("fetches", f"checkpoint of {', '.join(sorted(fetched))}, not on this machine yet")
    if plan.bad_files:
        yield from _item("skipped", f"{_count(plan.bad_files, 'file')} without a valid record in results=")
    for (status, reason), number in plan.reasons().items():
        if status == REFUSED:
            continue  # printed on standard error, as a run does
        yield from _item(f"{status}:", f"{_count(number, 'cell')}: {one_line(reason, LONGEST_REASON)}")


def _time(plan: SweepPlan) -> str:
    unknown = plan.unknown()
    if not any(cell.runs for cell in plan.cells):
        return "nothing to run"
    if unknown == sum(cell.runs for cell in plan.cells):
        return "unknown: there are no records of similar cells"
    rest = f", and {_count(unknown, 'cell')} of unknown time" if unknown else ""
    seconds = plan.total_seconds()
    shared = f" on one GPU, at least {minutes_text(seconds / plan.devices)} on {plan.devices}"
    return f"{about(seconds)}{shared if plan.devices > 1 else ''}{rest}"


def _sources(plan: SweepPlan) -> str:
    texts = [
        f"{'this machine' if machine in plan.machines else machine} ({_count(cells, 'cell')})"
        for machine, cells in sorted(plan.sources().items(), key=lambda item: item[0] not in plan.machines)
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


def about(seconds: float) -> str:
    """Return an estimated time as text, such as "about 3 min"."""
    return "less than a minute" if seconds < 45 else f"about {minutes_text(seconds)}"


def minutes_text(seconds: float) -> str:
    """Return a time as text, rounded to minutes, at least 1."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
