"""Rows of the markdown tables of the suite."""

from __future__ import annotations

import re


def rows(text: str) -> list[dict[str, str]]:
    """Rows of all tables by column: the parts of a split table are joined, and numbers replaced by their notes. Tables
    of winners and of the parts of requests are left out."""
    sections = re.split(r"^#+ .*$", text, flags=re.MULTILINE)
    return [row for section in sections for row in section_rows(section) if not {"winner", "packing"} & row.keys()]


def section_rows(section: str) -> list[dict[str, str]]:
    parts = [part.splitlines() for part in section.split("\n\n") if part.lstrip().startswith("|")]
    listing = section.partition("Notes:\n\n")[2].partition("\n\n")[0].replace("\n   ", " ")
    notes = dict(line.split(". ", 1) for line in listing.splitlines())
    rows_by_number: dict[str, dict[str, str]] = {}
    for number, part in enumerate(parts):
        header, _, *body = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in part if line)
        for index, line in enumerate(body):
            row = dict(zip(header, line, strict=True))
            assert number == 0 or "row" in row
            rows_by_number.setdefault(row.pop("row", str(index)), {}).update(row)
    columns = dict.fromkeys([*(name for row in rows_by_number.values() for name in row), "notes"])
    return [{name: with_notes(row.get(name, ""), notes) for name in columns} for row in rows_by_number.values()]


def with_notes(cell: str, notes: dict[str, str]) -> str:
    """The cell as it is without a list of notes: a verdict is the beginning of its note, if that has more words."""
    verdicts, bracket, numbers = cell.partition("[")
    if not bracket or not re.fullmatch(r"[\d,]+\]", numbers):
        return cell
    texts = [notes[number] for number in numbers.rstrip("]").split(",")]
    alone = [v for v in verdicts.strip().split("; ") if v and not any(text.startswith(v) for text in texts)]
    return "; ".join([*alone, *texts])
