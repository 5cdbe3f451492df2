"""Delimited text files with a header: which delimiter and which quoting a file has, and its rows.

The csv module splits the lines. This module decides how: spreadsheets and pandas put a field that holds a delimiter or
a quote into quotes, while the tab-separated files of GLUE hold quotes that belong to the text.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DELIMITERS = (",", "\t", ";", "|")

MINIMAL = frozenset('"\r\n'), frozenset('"\r\n,')
"""Characters that a field must be quoted for, besides the delimiter: of the csv module and pandas, and of spreadsheets,
which also quote fields with commas in tab-separated files."""


class Malformed(ValueError):
    """A line that is not a row of the table; the message has the number of the line."""


@dataclass(frozen=True)
class Line:
    """A row of the file: the number of its first line and its fields."""

    number: int
    fields: Sequence[str]


def read_delimited(text: str, wanted: Sequence[str], default: str) -> tuple[list[str], list[Line]]:
    """The header and the rows of a file; rows of empty fields are left out.

    Args:
        wanted: columns that every row must have.
        default: the delimiter that the name of the file stands for.

    Raises:
        Malformed: a row is too short or too long, or a quoted field is not closed.
    """
    delimiter = delimiter_of(text, wanted, default)
    quoted, plain = _Reading(text, delimiter, True, wanted), _Reading(text, delimiter, False, wanted)
    chosen = quoted if _has_quoting(text, delimiter, quoted, plain) else plain
    if chosen.problem:
        raise Malformed(chosen.problem)
    return chosen.header, chosen.lines


def delimiter_of(text: str, wanted: Sequence[str], default: str) -> str:
    """The delimiter whose header has the most of the wanted columns, then the most columns; `default` where several
    do."""
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")

    def found(delimiter: str) -> tuple[int, int]:
        header = _header(next(csv.reader([first], delimiter=delimiter), []))
        return len(set(wanted) & set(header)), len(header)

    return max((default, *DELIMITERS), key=found)


def _header(fields: Sequence[str]) -> list[str]:
    return [field.strip() for field in fields]


class _Reading:
    """The file read with or without quoting; `problem` says why it cannot be read so, and is empty if it can."""

    def __init__(self, text: str, delimiter: str, quoting: bool, wanted: Sequence[str]) -> None:
        self.header: list[str] = []
        self.lines: list[Line] = []
        self.problem = ""
        how: dict[str, Any] = {"strict": True} if quoting else {"quoting": csv.QUOTE_NONE}
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **how)
        number = 1
        try:
            for fields in reader:
                if any(field.strip() for field in fields):
                    self._take(Line(number, fields), wanted)
                number = reader.line_num + 1
        except csv.Error as error:
            said = "a quoted field is not closed" if "unexpected end" in str(error) else str(error)
            self.problem = self.problem or f"line {number}: {said}"

    def _take(self, line: Line, wanted: Sequence[str]) -> None:
        if not self.header:
            self.header = _header(line.fields)
            self._needed = max((self.header.index(name) for name in wanted if name in self.header), default=0)
            return
        self.lines.append(line)
        count, width = len(line.fields), len(self.header)
        if count <= self._needed:
            lost = next(name for name in wanted if name in self.header and self.header.index(name) >= count)
            said = f"the line is short: {count} of {width} fields, so that it has no {lost}; mend or remove the line"
        elif any(field.strip() for field in line.fields[width:]):
            said = f"the line has {count} fields and the header {width}; a text that holds the delimiter must be quoted"
        else:
            return
        self.problem = self.problem or f"line {line.number}: {said}"


def _has_quoting(text: str, delimiter: str, quoted: _Reading, plain: _Reading) -> bool:
    """Whether quotes around a field are the file's and not the text's.

    With commas they are wherever that gives whole rows. With tabs both readings may: then the quotes are the file's if
    a program that quotes could have written them. No field may hold a quote that is not escaped, and either some quoted
    field holds an escaped quote, or quotes stand exactly where a field needs them or around all of a column.
    """
    if '"' not in text:
        return False
    if quoted.problem:
        return bool(plain.problem) and delimiter != "\t"
    if plain.problem or delimiter != "\t":
        return True
    if [len(line.fields) for line in plain.lines] != [len(line.fields) for line in quoted.lines]:
        return True  # some quoted field holds a tab or the end of a line
    columns: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for raw, line in zip(plain.lines, quoted.lines, strict=True):
        for column, pair in enumerate(zip(raw.fields, line.fields, strict=True)):
            columns[column].append(pair)
    fields = [pair for pairs in columns.values() for pair in pairs]
    if any('"' in raw and not raw.startswith('"') for raw, _ in fields):
        return False
    if any('"' in value for raw, value in fields):
        return True
    return any(all(_by_rule(pairs, delimiter, special) for pairs in columns.values()) for special in MINIMAL)


def _by_rule(pairs: Sequence[tuple[str, str]], delimiter: str, special: frozenset[str]) -> bool:
    """Whether the fields of a column, as they stand and as they are read, are quoted exactly where they hold a special
    character, or wherever they are not empty."""
    quoted = [raw.startswith('"') for raw, _ in pairs]
    needed = [bool({*special, delimiter} & set(value)) for _, value in pairs]
    return quoted == needed or all(yes or not value for yes, (_, value) in zip(quoted, pairs, strict=True))
