"""What the rows of every table have in common: whose they are, what tells them apart, and how they become markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from suites.records.record import Record
from suites.tables.provenance import provenance
from suites.text import cell_text, without_html


class Incomparable(ValueError):
    """Rows that must not stand in one table: measured on different GPUs, drivers or CPUs."""


def by_machine(title: str, legend: str, records: Iterable[Record], section: Callable[[Sequence[Record]], str]) -> str:
    """All records in markdown: one section a machine."""
    ordered = sorted(records, key=lambda r: str(r.environment["machine"]))
    sections = [section(list(group)) for _, group in groupby(ordered, key=lambda r: r.environment["machine"])]
    return "\n".join([f"# {title}", "", legend, *map(without_html, sections)]) + "\n"


def one_machine(records: Sequence[Record]) -> str:
    """The heading of a section, and lines that say so if several devices or versions of the suite made its records.

    Raises:
        Incomparable: the records come from different GPUs, drivers or CPUs.
    """
    machines = sorted({str(record.environment["machine"]) for record in records})
    if len(machines) > 1:
        raise Incomparable(f"these rows were measured on different machines: {', '.join(machines)}")
    return "\n".join([f"## {machine_title(records[0])}", *provenance(records)])


def machine_title(record: Record) -> str:
    environment = record.environment
    if "gpu" in environment:
        return f"{environment['gpu']}, driver {environment['driver']}"
    return f"CPU: {environment['cpu']}, {environment['cores']} cores"


def profiles_of(record: Record) -> str:
    """The optimization profiles of an engine: which kind, and the range where there is one."""
    options = record.cell.options
    if "profiles" not in options:
        return ""
    if options["profiles"] == "per_shape":
        return "per_shape"
    if options["profiles"] == "ranges":
        ends = [(f"{low}x{short}", f"{most}x{longest}") for low, short, most, longest in options["ranges"]]
        return f"ranges {' '.join(low if low == high else f'{low}..{high}' for low, high in ends)}"
    low, best, high = ("x".join(str(size) for size in options[name]) for name in ("min", "opt", "max"))
    return f"{options['profiles']} {low}..{high}" + (f", opt {best}" if best != high else "")


def products_not_int8(record: Record) -> str:
    """How many products of an engine of INT8 are INT8, if not all are; of plugins also that it is not known: TensorRT
    is free to leave their INT8, as it is not to leave Q/DQ."""
    types = record.artifacts.get("built", {}).get("notes", {}).get("product_types", {})
    if record.cell.precision != "int8" or types.keys() == {"i8"}:
        return ""
    if not types:
        built = record.cell.backend == "trt_plugin" and "built" in record.artifacts
        return "how many products are in INT8 is not known" if built else ""
    return f"{types.get('i8', 0)} of {sum(types.values())} products in INT8, over all profiles"


def joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without the columns that are empty in every row, padded so that it can be read as plain text."""
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = [[cell_text(row[i]) for i in kept] for row in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(kept))]
    first, *others = (_line(line, widths) for line in lines)
    return "\n".join([first, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *others])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
