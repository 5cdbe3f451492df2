"""The short table at the end of a run. It fits into a terminal of 80 columns, and long texts are abbreviated."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.schema.enums import Rank
from suites.text import one_line

WIDTH = 80
"""Longest line in terminal cells."""

SMALLEST = 10
"""Smallest width of a text column that becomes narrower because the line would be too long."""

NOTE = 26
"""Longest note in the last column, in characters. The reason of a longer one moves to the list below the table."""

REASON = 300
"""Longest reason in the list below the table, in characters."""

GAP = 2
"""Spaces between two columns."""

OWN, OTHER = "*", ""
"""First cell of a line: whether this run measured the row."""

OWN_REMARK = "*: row of this run"

OTHERS_SHOWN = 3
"""Largest number of rows in a group that are neither of this run, nor the baseline, nor among the fastest."""

WINNER, EXCLUDED = "bold green", "yellow"
"""Styles of a line in a terminal with colours."""


@dataclass(frozen=True)
class RunScope:
    """Records that an end table is made from.

    Attributes:
        folder: the machine's results, with records of other suites.
        records: all records of the suite in this folder, with those of this run.
        own: ids of the cells that this run measured or reused.
        baseline: the rows that others are compared with, as BACKEND/PRECISION.
        whole: show all rows of this run. Otherwise only the fastest ones are shown, for commands with many cells.
        rank: the time that ranks rows.
    """

    folder: MachineFolder
    records: Sequence[Record]
    own: frozenset[str]
    baseline: str
    whole: bool = True
    rank: Rank = Rank.gpu

    def mark(self, record: Record) -> str:
        """Return the first cell of a line."""
        return OWN if record.cell.id in self.own else OTHER

    def always_shown(self, record: Record) -> bool:
        """Return whether the row is shown in any place of its table."""
        return self.whole and record.cell.id in self.own


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        right: whether its cells are aligned on the right.
        shrinks: the order in which columns become narrower if a line is too long, from 1; 0 for a column that stays.
    """

    name: str
    right: bool = False
    shrinks: int = 0


@dataclass(frozen=True)
class Line:
    """A row.

    Attributes:
        cells: texts by column.
        reason: verdict and reason of a row that cannot be chosen, such as "invalid: the outputs are NaN"; it is added
            to the last cell.
        style: style of rich in a terminal with colours.
    """

    cells: Sequence[str]
    reason: str = ""
    style: str = ""


@dataclass(frozen=True)
class Group:
    """Lines that are compared with each other, with a title above them.

    Attributes:
        hidden: number of lines left out.
        note: remark below the lines, such as the reason why no line is the fastest.
    """

    title: str
    lines: Sequence[Line]
    hidden: int = 0
    note: str = ""


@dataclass(frozen=True)
class EndTable:
    """A table: headings, groups of lines below one header, and remarks at the end."""

    headings: Sequence[str]
    columns: Sequence[Column]
    groups: Sequence[Group]
    remarks: Sequence[str] = ()


def heading(name: str, details: str) -> list[str]:
    """Return "name: details" in lines of at most `WIDTH` terminal cells."""
    text = Text(one_line(f"{name}: {details}" if details else name))
    return [line.plain.rstrip() for line in text.wrap(Console(width=WIDTH), WIDTH)]


def abbreviated(text: str, width: int) -> str:
    """Return `text` in one line of at most `width` terminal cells. Three dots replace the end of a long text."""
    line = one_line(text)
    if cell_len(line) <= width:
        return line
    return f"{set_cell_size(line, max(width - 3, 0)).rstrip()}..."


def short_options(options: str) -> str:
    """Return the options of a row without the words that most options share."""
    return options.replace("quantization.", "").replace("profiles ", "").replace("scheme=", "")


def selected(important: Sequence[bool]) -> list[int]:
    """Return the indices of the lines to show: all important ones, and the first `OTHERS_SHOWN` others, in order."""
    others = [index for index, chosen in enumerate(important) if not chosen][:OTHERS_SHOWN]
    return [index for index, chosen in enumerate(important) if chosen or index in others]


def rendered(table: EndTable, styled: bool = False) -> str:
    """Return the table as text with lines of at most `WIDTH` cells.

    Args:
        styled: add escape sequences for colours.
    """
    output = io.StringIO()
    console = Console(
        file=output, width=WIDTH, force_terminal=styled, color_system="standard" if styled else None,
        highlight=False, legacy_windows=False,
    )  # fmt: skip
    reasons: dict[str, int] = {}
    columns, groups = _without_empty_columns(table, reasons)
    widths = _widths(columns, [line.cells for group in groups for line in group.lines])
    for text in table.headings:
        console.print(Text(abbreviated(text, WIDTH), "bold"))
    console.print()
    console.print(_grid(columns, widths, [Line([column.name for column in columns], style="dim")]))
    for group in groups:
        if group.title:
            console.print(Text(abbreviated(group.title, WIDTH), "cyan"))
        console.print(_grid(columns, widths, group.lines))
        below = [f"and {group.hidden} more row{'s' if group.hidden > 1 else ''}"] if group.hidden else []
        for text in [*below, *([group.note] if group.note else [])]:
            console.print(Text(abbreviated(f"{' ' * (widths[0] + GAP)}{text}", WIDTH)))
    console.print(Text("\n".join(["", *_listed(reasons), *map(_wrapped, table.remarks)])), soft_wrap=True)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()).rstrip()


def _listed(reasons: Mapping[str, int]) -> list[str]:
    return [_wrapped(f"[{number}] {one_line(text, REASON)}", "    ") for text, number in reasons.items()]


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _last_cell(line: Line, reasons: dict[str, int]) -> str:
    """Return the last cell with its reason, or with the number of the reason in `reasons`."""
    verdict, _, reason = line.reason.partition(": ")
    whole = "; ".join(text for text in (line.reason, line.cells[-1]) if text)
    if not reason or len(whole) <= NOTE:
        return whole
    short = f"{verdict} [{reasons.setdefault(reason, len(reasons) + 1)}]"
    return "; ".join(text for text in (short, line.cells[-1]) if text)


def _without_empty_columns(table: EndTable, reasons: dict[str, int]) -> tuple[list[Column], list[Group]]:
    """Return the columns that have a cell, and the groups with the cells of these columns."""
    groups = [
        [Line([*line.cells[:-1], _last_cell(line, reasons)], style=line.style) for line in group.lines]
        for group in table.groups
    ]
    lines = [line for group in groups for line in group]
    kept = [i for i in range(len(table.columns)) if i == 0 or any(line.cells[i] for line in lines)]
    return [table.columns[i] for i in kept], [
        replace(group, lines=[Line([line.cells[i] for i in kept], style=line.style) for line in of_group])
        for group, of_group in zip(table.groups, groups, strict=True)
    ]


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of each column in cells. Columns become narrower in the order of `Column.shrinks`."""
    widths = [
        max(cell_len(one_line(text)) for text in (column.name, *(cells[i] for cells in rows)))
        for i, column in enumerate(columns)
    ]
    excess = sum(widths) + GAP * (len(widths) - 1) - WIDTH
    for index in sorted((i for i, column in enumerate(columns) if column.shrinks), key=lambda i: columns[i].shrinks):
        less = min(max(excess, 0), max(widths[index] - SMALLEST, 0))
        widths[index], excess = widths[index] - less, excess - less
    return widths


def _grid(columns: Sequence[Column], widths: Sequence[int], lines: Sequence[Line]) -> Table:
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        grid.add_column(width=width, no_wrap=True, justify="right" if column.right else "left")
    for line in lines:
        cells = [Text(abbreviated(text, width)) for text, width in zip(line.cells, widths, strict=True)]
        grid.add_row(*cells, style=line.style or None)
    return grid
