"""Sections of tables that have a part for each record."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from suites.records.record import OK, Record
from suites.tables.distinctions import distinctions
from suites.tables.markdown import configuration, joined, one_machine, wrapped


def backend_title(record: Record) -> str:
    """Return the release, backend and precision of a record."""
    cell = record.cell
    return joined(f"{cell.release}, {cell.backend} {cell.precision}")


def record_section(
    records: Sequence[Record],
    part: Callable[[Record], Sequence[str]],
    title: Callable[[Record], str] = backend_title,
    summary: Callable[[Sequence[Record]], Sequence[str]] = lambda records: (),
) -> str:
    """Return the section of a machine: for each record a heading, the options in which it differs, and its part.

    Args:
        part: returns the lines of a record whose outcome is ok. Other records have their reason instead.
        title: returns the heading of a record.
        summary: returns lines that compare the records, above their parts.
    """
    common = distinctions(records)
    lines = ["", one_machine(records), *summary(records), *common.caption()]
    for record in sorted(records, key=lambda record: record.cell.id):
        lines += ["", f"### {title(record)}", ""]
        if words := configuration(record, common.of(record)):
            lines += [wrapped(words), ""]
        lines += part(record) if record.outcome == OK else [f"{record.outcome}: {record.reason}"]
    return "\n".join(lines)
