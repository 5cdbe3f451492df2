"""Rows of a data set, from a file or from the hub, each with the place that a message about it names."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from suites.checks import Refused, decoded, is_file, read_bytes, shortened
from suites.tasks.delimited import Malformed, read_delimited

Rows = Iterable[tuple[str, dict[str, Any]]]

JSON_LINES = (".jsonl", ".ndjson", ".json")

OTHER_FORMATS = (".parquet", ".arrow", ".feather", ".xlsx", ".xls", ".ods", ".gz", ".zip", ".bz2", ".xz", ".pkl")
"""Formats of tables that people have and that are not read here."""


def from_table(path: Path, wanted: Sequence[str]) -> Rows:
    """Rows of a file with a header (.csv, .tsv, .txt: the header tells the delimiter) or with a JSON object a line
    (.jsonl).

    Args:
        wanted: the columns that every row must have.

    Raises:
        Refused: there is no such file, it is not UTF-8, or one of its lines is no row with those columns.
    """
    suffix = path.suffix.lower()
    if not is_file(path):
        if os.path.isdir(path):
            raise Refused(f"task.path={path} is a folder; give a .csv, .tsv or .jsonl file")
        raise Refused(f"task.path={path.parent} has no {path.name}")
    if suffix in OTHER_FORMATS:
        raise Refused(f"{path}: {suffix} files are not read here; save it as .csv, .tsv or .jsonl")
    text = decoded(str(path), read_bytes("task.path", path))
    yield from _from_json(path, text) if suffix in JSON_LINES else _with_header(path, text, wanted)


def _with_header(path: Path, text: str, wanted: Sequence[str]) -> Rows:
    default = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
    try:
        header, lines = read_delimited(text, wanted, default)
    except Malformed as error:
        raise Refused(f"{path}, {error}") from None
    for column in wanted if header else ():
        if header.count(column) != 1:
            said = "there is no" if column not in header else "there is more than one"
            names = shortened(", ".join(header))
            raise Refused(
                f"{path}: {said} column {column} in its header ({names}); name another with task.* or mend it"
            )
    for line in lines:
        yield f"{path}, line {line.number}", dict(zip(header, line.fields, strict=False))


def from_headless(path: Path, columns: Sequence[str]) -> Rows:
    """Of a file with tabs that has no header and no quoting, such as STS-B's; fields behind `columns` are left out.

    Raises:
        Refused: there is no such file, it is not UTF-8, or a line is too short.
    """
    if not is_file(path):
        raise Refused(f"task.path={path.parent} has no {path.name}")
    text = decoded(str(path), read_bytes("task.path", path))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if len(fields) < len(columns):
                lost = columns[len(fields)]
                short = f"the line is short: {len(fields)} of {len(columns)} fields between tabs"
                raise Refused(f"{path}, line {reader.line_num}: {short}, so that there is no column {lost}")
            yield f"{path}, line {reader.line_num}", dict(zip(columns, fields, strict=False))
    except csv.Error as error:
        raise Refused(f"{path}, line {reader.line_num}: {error}") from None


def _from_json(path: Path, text: str) -> Rows:
    """Rows of a file with an object a line, or with one list of objects."""
    whole = text.lstrip().startswith("[")
    for number, line in enumerate([text] if whole else io.StringIO(text), 1):
        if not line.strip():
            continue
        place = str(path) if whole else f"{path}, line {number}"
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Refused(f"{place}: it is not JSON ({error}); a .jsonl file has one object a line") from None
        for entry, row in enumerate(found if whole else [found], 1):
            where = f"{path}, entry {entry}" if whole else place
            if not isinstance(row, dict):
                raise Refused(f"{where}: it is no JSON object with a value for each column")
            for column, value in row.items():
                if isinstance(value, dict | list):
                    row[column] = None if not value else _Nested(value)
            yield where, row


class _Nested:
    """A list or an object in the place of a text."""

    def __init__(self, value: Any) -> None:
        self.kind = "list" if isinstance(value, list) else "object"


def from_hub(hub: str, split: str, subset: str = "") -> Rows:
    """By the library `datasets`.

    Raises:
        Refused: it is not installed, the hub cannot be reached, or has no such part.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise Refused(
            "give a local copy as task.path=, or pip install datasets (the extra [hub]) to fetch the task from the hub"
        ) from None
    try:
        data = load_dataset(hub, subset or None, split=split)
    except Exception as error:  # the library raises whatever its HTTP client of the day raises
        first = (str(error).strip().splitlines() or [""])[0]
        said = f"{type(error).__name__}: {first}" if isinstance(error, ValueError) else type(error).__name__
        asked = f"{hub}{f' ({subset})' if subset else ''}, {split}"
        raise Refused(f"{asked} cannot be fetched ({said}); give a local copy as task.path=") from None
    for number, row in enumerate(data, 1):
        yield f"{hub}, {split} row {number}", row


def texts_of(rows: Rows, columns: Sequence[str]) -> Iterable[tuple[str, dict[str, str]]]:
    """The columns of each row as stripped text.

    Raises:
        Refused: a column is missing or empty, or holds no text.
    """
    for place, row in rows:
        for column in columns:
            value = row.get(column)
            if value is None and column in row:
                raise Refused(f"{place}: {column} is null and must hold a text")
            if value is None:
                there = shortened(", ".join(map(str, row)))
                raise Refused(f"{place}: there is no column {column}, which the task needs; there are {there}")
            if isinstance(value, _Nested):
                raise Refused(f"{place}: {column} holds a {value.kind} and must hold a text")
            if not str(value).strip():
                raise Refused(f"{place}: {column} is empty")
        yield place, {column: str(row[column]).strip() for column in columns}
