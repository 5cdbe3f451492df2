"""Delimited text files with a header: detect the delimiter and the quoting of a file, and read its rows.

The csv module splits the lines; pandas accepts a line that is too short and a quote within a field, and counts rows
instead of lines. This module decides how to read quotes: spreadsheets and pandas quote a field that contains a
delimiter or a quote, but in the tab-separated files of GLUE the quotes are part of the text.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

csv.field_size_limit((1 << 31) - 1)
"""A document may be longer than the 131,072 characters that the csv module reads by default."""

DELIMITERS = (",", "\t", ";", "|")

MINIMAL = frozenset('"\r\n'), frozenset('"\r\n,')
"""Two sets of characters that, in addition to the delimiter, cause a program to quote a field.

The first is the rule of the csv module and pandas. The second is the rule of spreadsheets, which also quote fields with
commas in tab-separated files.
"""


class Malformed(ValueError):
    """A line is not a row of the table. The message has the number of the line."""


@dataclass(frozen=True)
class Line:
    """Row of the file: the number of its first line, and its fields."""

    number: int
    fields: Sequence[str]


def read_delimited(text: str, columns: Sequence[str], default: str) -> tuple[list[str], list[Line]]:
    """Return the header and the rows of a file. Rows with only empty fields are skipped.

    Args:
        columns: columns that every row must have.
        default: the delimiter that the extension of the file implies.

    Raises:
        Malformed: a row is too short or too long, or a quoted field is not closed.
    """
    delimiter = delimiter_of(text, columns, default)
    quoted, plain = _Reading(text, delimiter, True, columns), _Reading(text, delimiter, False, columns)
    chosen = quoted if _has_quoting(text, delimiter, quoted, plain) else plain
    if chosen.problem:
        raise Malformed(chosen.problem)
    return chosen.header, chosen.lines


def delimiter_of(text: str, columns: Sequence[str], default: str) -> str:
    """Return the delimiter whose header has the most of `columns`, then the most columns; `default` for a tie."""
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")

    def matches(delimiter: str) -> tuple[int, int]:
        header = _header(next(csv.reader([first], delimiter=delimiter), []))
        return len(set(columns) & set(header)), len(header)

    return max((default, *DELIMITERS), key=matches)


def _header(fields: Sequence[str]) -> list[str]:
    return [field.strip() for field in fields]


class _Reading:
    """Contents of the file, read with or without quoting. `problem` says why this fails; empty if it does not."""

    def __init__(self, text: str, delimiter: str, quoting: bool, columns: Sequence[str]) -> None:
        self.header: list[str] = []
        self.lines: list[Line] = []
        self.problem = ""
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=delimiter,
            strict=quoting,
            quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
        )
        number = 1
        try:
            for fields in reader:
                if any(field.strip() for field in fields):
                    self._add(Line(number, fields), columns)
                number = reader.line_num + 1
        except csv.Error as error:
            fault = "a quoted field is not closed" if "unexpected end" in str(error) else str(error)
            self.problem = self.problem or f"line {number}: {fault}"

    def _add(self, line: Line, columns: Sequence[str]) -> None:
        if not self.header:
            self.header = _header(line.fields)
            self._needed = max((self.header.index(name) for name in columns if name in self.header), default=0)
            return
        self.lines.append(line)
        count, width = len(line.fields), len(self.header)
        if count <= self._needed:
            missing = next(name for name in columns if name in self.header and self.header.index(name) >= count)
            fault = f"the line has {count} of {width} fields and no field for {missing}; correct or remove the line"
        elif any(field.strip() for field in line.fields[width:]):
            fault = f"the line has {count} fields, but the header has {width}; quote a text that contains the delimiter"
        else:
            return
        self.problem = self.problem or f"line {line.number}: {fault}"


def _has_quoting(text: str, delimiter: str, quoted: _Reading, plain: _Reading) -> bool:
    """Return whether quotes around a field belong to the format of the file, and not to the text.

    In a file with commas they do if this gives complete rows. In a file with tabs both readings may give complete rows.
    Then the quotes belong to the format if a program that quotes fields could have written them. For that, no field may
    contain a quote that is not escaped. In addition, a quoted field contains an escaped quote, or exactly the fields
    that need quotes have them, or all fields of a column have them.
    """
    if '"' not in text:
        return False
    if quoted.problem:
        return bool(plain.problem) and delimiter != "\t"
    if plain.problem or delimiter != "\t":
        return True
    if [len(line.fields) for line in plain.lines] != [len(line.fields) for line in quoted.lines]:
        return True  # a quoted field contains a tab or a line break
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
    """Return whether exactly the fields with a special character are quoted, or all fields that are not empty.

    Args:
        pairs: the fields of a column, each as text of the file and as value.
    """
    quoted = [raw.startswith('"') for raw, _ in pairs]
    needed = [bool({*special, delimiter} & set(value)) for _, value in pairs]
    return quoted == needed or all(
        has_quotes or not value for has_quotes, (_, value) in zip(quoted, pairs, strict=True)
    )
