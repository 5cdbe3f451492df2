"""Functions that all tables share: headings, notes, and markdown that fits in a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

from backends.registry import descriptions
from suites.records.record import Record
from suites.tables.provenance import provenance
from suites.text import cell_text, one_line, without_html

WIDTH = 120
"""The longest line of a table in characters, where its columns allow it."""

LEGEND_HEADING = "\n## Legend\n"
"""The heading above the legend at the end of a file of tables."""

ROW_LEGEND = "- **row**: number of a row in a table that is split into several parts. Each part has the same numbers."
NOTES_LEGEND = (
    "- **notes**: verdicts, profiles, options and remarks. Numbers in brackets refer to the list below the table."
)

SHORT = 20
"""Characters of a text that stays in its cell although its column is numbered. Notes always move."""

NOTE = "\n"
"""Separator of the notes in a cell. Text of a record has no line break."""

VERDICT = re.compile(r"\*\*(?:fastest|invalid)\*\*|(?:cannot win|unsupported|unavailable|failed|timeout)\b")
"""The first words of a note that stay in its cell when the note moves to the list below the table."""


class Incomparable(ValueError):
    """Rows of one table were measured on different GPUs, drivers or CPUs."""


def by_machine(title: str, legend: str, records: Iterable[Record], section: Callable[[Sequence[Record]], str]) -> str:
    """Return a markdown document: the title, one section for each machine, and the legend."""
    ordered = sorted(records, key=lambda r: r.environment.machine)
    sections = [section(list(group)) for _, group in groupby(ordered, key=lambda r: r.environment.machine)]
    return document(title, legend, sections)


def document(title: str, legend: str, sections: Iterable[str]) -> str:
    """Return a markdown document: the title, the sections, and the legend below them."""
    return "\n".join([f"# {title}", *map(without_html, sections), LEGEND_HEADING, legend]) + "\n"


def without_legend(text: str) -> str:
    """Return a document of `by_machine` without its legend."""
    return text.partition(LEGEND_HEADING)[0]


def one_machine(records: Sequence[Record]) -> str:
    """Return the heading of a machine. Lines below it name the devices or versions of the suite if there are several.

    Raises:
        Incomparable: the records come from different GPUs, drivers or CPUs.
    """
    machines = sorted({record.environment.machine for record in records})
    if len(machines) > 1:
        raise Incomparable(f"these rows were measured on different machines: {', '.join(machines)}")
    return "\n".join([f"## {machine_title(records[0])}", *map(wrapped, provenance(records))])


def machine_title(record: Record) -> str:
    environment = record.environment
    if environment.gpu is not None:
        return f"{environment.gpu}, driver {environment.driver}"
    return f"CPU: {environment.cpu}, {environment.cores} cores"


def profiles_of(record: Record) -> str:
    """Return the kind and the ranges of an engine's optimization profiles; empty for a backend without profiles."""
    options = record.cell.options
    if "profiles" not in options:
        return ""
    if options["profiles"] == "per_shape":
        return "per_shape"
    if options["profiles"] == "ranges":
        ends = [(f"{low}x{short}", f"{most}x{longest}") for low, short, most, longest in options["ranges"]]
        return f"ranges {' '.join(low if low == high else f'{low}..{high}' for low, high in ends)}"
    smallest, opt, largest = ("x".join(str(size) for size in options[name]) for name in ("min", "opt", "max"))
    return f"{options['profiles']} {smallest}..{largest}" + (f", opt {opt}" if opt != largest else "")


def configuration(record: Record, options: str) -> str:
    """Return one note with the profiles of a record and the options in which it differs from other rows."""
    profiles = profiles_of(record)
    return joined(f"profiles {profiles}" if profiles else "", options)


def products_not_int8(record: Record) -> str:
    """Return a note if some matrix products of an INT8 row are not in INT8, or if this is not known.

    TensorRT may compute a product in an engine of plugins in another precision. It must obey Q/DQ, so the graph gives
    the number of weight products.
    """
    types = record.artifacts.built_notes.product_types or {}
    if record.cell.precision != "int8" or types.keys() == {"i8"}:
        return ""
    if not types:
        backend = descriptions().get(record.cell.backend)
        unknown = backend is not None and backend.chooses_int8 and record.artifacts.built is not None
        graph = record.artifacts.graph_notes
        some = graph.weight_products_quantized != graph.weight_products
        partly = f"{graph.weight_products_quantized} of {graph.weight_products} weight products in INT8" if some else ""
        return "the number of products in INT8 is not known" if unknown else partly
    return f"{types.get('i8', 0)} of {sum(types.values())} products in INT8, over all profiles"


def nodes_elsewhere(record: Record) -> str:
    """Return a note with the nodes that the execution provider of a cell leaves to others; empty if it runs all."""
    notes = record.artifacts.built_notes
    nodes = notes.nodes_by_provider or {}
    others = {name.removesuffix("ExecutionProvider"): count for name, count in nodes.items() if name != notes.provider}
    if not others:
        return ""
    listed = ", ".join(f"{count:,} on {name}" for name, count in sorted(others.items()))
    return f"{sum(others.values()):,} of {sum(nodes.values()):,} nodes fall back: {listed}"


def joined(*texts: str) -> str:
    """Return the texts that are not empty, separated by semicolons."""
    return "; ".join(text for text in texts if text)


def digits(value: float) -> str:
    """Return a positive number with at least three significant digits."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def notes_cell(*notes: str) -> str:
    """Return a cell of a "notes" column. `fitted` may move each of its notes to the list below the table."""
    return NOTE.join(note for note in notes if note)


def inline(cell: str) -> str:
    """Return the notes of a cell in one line."""
    return cell.replace(NOTE, "; ")


class NoteList:
    """Numbered notes below a table. Equal notes have the same number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def shortened(self, cell: str) -> str:
        """Return the verdicts of a notes cell and the numbers of its notes, e.g. "**invalid** [2,3]"."""
        verdicts, numbers = [], []
        for note in cell.split(NOTE) if cell else ():
            found = VERDICT.match(note)
            if found:
                verdicts.append(found[0])
            if not found or found[0] != note:
                numbers.append(self._numbers.setdefault(note, len(self._numbers) + 1))
        brackets = f"[{','.join(map(str, numbers))}]" if numbers else ""
        return " ".join(text for text in ("; ".join(dict.fromkeys(verdicts)), brackets) if text)

    def text(self) -> str:
        """Return the list in markdown; empty without notes."""
        return numbered_list(self._numbers)


def numbered_list(texts: Iterable[str]) -> str:
    """Return a numbered list in markdown, with lines of at most `WIDTH` characters."""
    return "\n".join(wrapped(f"{number}. {one_line(text)}", "   ") for number, text in enumerate(texts, 1))


class _Wrapper(textwrap.TextWrapper):
    """Breaks lines at blanks and after the plus signs of a list of options."""

    wordsep_simple_re = re.compile(r"(\s+|(?<=\+))")


def wrapped(text: str, indent: str = "") -> str:
    """Return `text` in lines of at most `WIDTH` characters; lines after the first begin with `indent`."""
    wrapper = _Wrapper(WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return wrapper.fill(text)


def fitted(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    keys: int,
    *,
    numbered: Sequence[str] = ("notes",),
    repeat_keys: bool = False,
) -> str:
    """Return a markdown table whose lines have at most `WIDTH` characters, where its columns allow it.

    A table that is too wide gets a numbered list of notes. If it still is too wide, it is split into several tables.

    Args:
        keys: number of leading columns that identify a row. They stay in the first table, with the column "notes".
        numbered: names of the columns whose texts move to the list.
        repeat_keys: repeat the key columns in each table, instead of numbering the rows.
    """
    kept = [index for index in range(len(header)) if any(row[index] for row in rows)]
    names = [header[index] for index in kept]
    keys = sum(index < keys for index in kept)
    plain = [[inline(row[index]) for index in kept] for row in rows]
    if _width(names, plain) <= WIDTH:
        return markdown(names, plain)
    notes = NoteList()

    def short_cell(name: str, text: str) -> str:
        stays = name not in numbered or (name != "notes" and len(text) <= SHORT)
        return text if stays else notes.shortened(text)

    short = [[short_cell(header[index], row[index]) for index in kept] for row in rows]
    tables = [markdown(names, short)] if _width(names, short) <= WIDTH else _split(names, short, keys, repeat_keys)
    return "\n\n".join([*tables, *([f"Notes:\n\n{notes.text()}"] if notes.text() else [])])


def _split(names: Sequence[str], rows: Sequence[Sequence[str]], keys: int, repeat_keys: bool) -> list[str]:
    """Return several tables that have the columns in turn. Rows without a figure are only in the first table."""
    columns = {name: [row[index] for row in rows] for index, name in enumerate(names)}
    numbers = {} if repeat_keys else {"row": [str(number) for number in range(1, len(rows) + 1)]}
    identity = {name: columns[name] for name in names[:keys]}
    last = {"notes": columns["notes"]} if "notes" in columns else {}
    rest = [name for name in names[keys:] if name != "notes"]
    tables: list[str] = []
    lead, tail = {**numbers, **identity}, last
    while rest or tail or not tables:
        chosen: dict[str, Sequence[str]] = {}
        while rest and (_fits({**lead, **chosen, rest[0]: columns[rest[0]], **tail}) or not (chosen or tail)):
            name = rest.pop(0)
            chosen[name] = columns[name]
        body = {**chosen, **tail}
        filled = [index for index in range(len(rows)) if not tables or any(cells[index] for cells in body.values())]
        table = {**lead, **body}
        tables.append(markdown([*table], [[cells[index] for cells in table.values()] for index in filled]))
        lead, tail = (lead if repeat_keys else numbers), {}
    return tables


def _fits(columns: Mapping[str, Sequence[str]]) -> bool:
    return _width([*columns], list(zip(*columns.values(), strict=True))) <= WIDTH


def _width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return the number of characters in a line of the table."""
    return 1 + sum(3 + max(len(cell_text(row[index])) for row in (header, *rows)) for index in range(len(header)))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table without its empty columns. Cells are padded, so that it is readable as plain text."""
    kept = [index for index in range(len(header)) if any(row[index] for row in rows)]
    lines = [[cell_text(row[index]) for index in kept] for row in (header, *rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(kept))]
    first, *others = (_line(line, widths) for line in lines)
    return "\n".join([first, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *others])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
