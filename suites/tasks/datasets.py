"""Rows of a data set, from a file or from the hub. Each row has a place (file and line) for error messages."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from suites.schema.refusals import Refused, decoded, is_file, read_bytes, shortened
from suites.tasks.delimited import Malformed, read_delimited

Rows = Iterable[tuple[str, dict[str, object]]]

JSON_LINES = (".jsonl", ".ndjson", ".json")

INDEX_COLUMNS = ("id", "idx", "index", "guid")
"""Names of columns that number the rows."""

TABLES = (".csv", ".tsv", ".tab", *JSON_LINES)
"""Extensions of tables that `from_table` reads. A .txt file is a table or has one text per line."""

OTHER_FORMATS = (".parquet", ".arrow", ".feather", ".xlsx", ".xls", ".ods", ".gz", ".zip", ".bz2", ".xz", ".pkl")
"""Common formats of tables that this module does not read."""


def from_table(path: Path, columns: Sequence[str], keys: Mapping[str, str] | None = None) -> Rows:
    """Yield the rows of a file with a header (.csv, .tsv, .txt), or with one JSON object per line (.jsonl).

    The header of a text file gives the delimiter.

    Args:
        columns: the columns that every row must have.
        keys: for each column that the user can name, the key of the configuration with this name.

    Raises:
        Refused: there is no such file, it is not UTF-8, or a line is not a row with these columns.
    """
    suffix = path.suffix.lower()
    if not is_file(path):
        if os.path.isdir(path):
            raise Refused(f"task.path={path} is a folder; give a .csv, .tsv or .jsonl file")
        raise Refused(f"task.path={path.parent} has no {path.name}")
    if suffix in OTHER_FORMATS:
        raise Refused(f"{path}: {suffix} files are not supported; save the table as .csv, .tsv or .jsonl")
    text = decoded(str(path), read_bytes("task.path", path))
    yield from _from_json(path, text) if suffix in JSON_LINES else _with_header(path, text, columns, keys or {})


def _with_header(path: Path, text: str, columns: Sequence[str], keys: Mapping[str, str]) -> Rows:
    default = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
    try:
        header, lines = read_delimited(text, columns, default)
    except Malformed as error:
        raise Refused(f"{path}, {error}") from None
    if header and (missing := [column for column in columns if column not in header]):
        raise Refused(_no_columns(str(path), missing, header, keys))
    for column in columns if header else ():
        if header.count(column) != 1:
            names = shortened(", ".join(header))
            raise Refused(f"{path}: there is more than one column {column} in its header ({names}); rename one of them")
    for line in lines:
        yield f"{path}, line {line.number}", dict(zip(header, line.fields, strict=False))


def _no_columns(place: str, missing: Sequence[str], available: Sequence[str], keys: Mapping[str, str]) -> str:
    """Return the line for missing columns: the available columns, and the keys that name a column, with an example.

    The example uses the last unused column for a label and the first unused columns for texts.
    """
    unused = [name for name in available if name and name not in keys and name.lower() not in INDEX_COLUMNS]
    examples = []
    for column in missing:
        if column in keys:
            name = unused.pop(-1 if keys[column] == "task.label" else 0) if unused else "COLUMN"
            examples.append(shlex.quote(f"{keys[column]}={shortened(name)}"))
    fault = f"there is no column {' and no column '.join(missing)}; its columns are {shortened(', '.join(available))}"
    correction = f"name yours, e.g. {' '.join(examples)}" if examples else "correct their names"
    return f"{place}: {fault}; {correction}"


def from_table_without_header(path: Path, columns: Sequence[str]) -> Rows:
    """Yield the rows of a file with tabs, without header and quoting (STS-B). Fields after `columns` are ignored.

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
                missing = columns[len(fields)]
                fault = f"the line has {len(fields)} of {len(columns)} fields between tabs and no field for {missing}"
                raise Refused(f"{path}, line {reader.line_num}: {fault}; correct or remove the line")
            yield f"{path}, line {reader.line_num}", dict(zip(columns, fields, strict=False))
    except csv.Error as error:
        raise Refused(f"{path}, line {reader.line_num}: {error}") from None


def _from_json(path: Path, text: str) -> Rows:
    """Yield the rows of a file with one object per line, or with a list of objects."""
    whole = text.lstrip().startswith("[")
    for number, line in enumerate([text] if whole else io.StringIO(text), 1):
        if not line.strip():
            continue
        place = str(path) if whole else f"{path}, line {number}"
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Refused(f"{place}: it is not JSON ({error}); a .jsonl file has one object per line") from None
        for entry, row in enumerate(content if whole else [content], 1):
            where = f"{path}, entry {entry}" if whole else place
            if not isinstance(row, dict):
                raise Refused(f"{where}: it is not a JSON object with a value for each column")
            for column, value in row.items():
                if isinstance(value, dict | list):
                    row[column] = None if not value else _Nested(value)
            yield where, row


class _Nested:
    """List or object in a column that must be a text."""

    def __init__(self, value: object) -> None:
        self.kind = "list" if isinstance(value, list) else "object"


def from_hub(hub: str, split: str, subset: str = "") -> Rows:
    """Yield the rows of a data set of the hub, with the library `datasets`.

    Raises:
        Refused: the library is not installed, the hub cannot be reached, or it has no such data set or split.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise Refused(
            "the library datasets is not installed; give a local copy as task.path=, or pip install datasets "
            "(the extra [hub]) to fetch the task from the hub"
        ) from None
    try:
        data = load_dataset(hub, subset or None, split=split)
    except Exception as error:  # the library raises errors of its HTTP client, which differ between versions
        first = (str(error).strip().splitlines() or [""])[0]
        fault = f"{type(error).__name__}: {first}" if isinstance(error, ValueError) else type(error).__name__
        source = f"{hub}{f' ({subset})' if subset else ''}, {split}"
        raise Refused(f"{source} cannot be fetched ({fault}); give a local copy as task.path=") from None
    for number, row in enumerate(data, 1):
        yield f"{hub}, {split} row {number}", row


def text_columns(
    rows: Rows, columns: Sequence[str], keys: Mapping[str, str] | None = None
) -> Iterable[tuple[str, dict[str, str]]]:
    """Yield the columns of each row as stripped text.

    Args:
        keys: for each column that the user can name, the key of the configuration with this name.

    Raises:
        Refused: a column is missing or empty, or is not a text.
    """
    for place, row in rows:
        if missing := [column for column in columns if column not in row]:
            raise Refused(_no_columns(place, missing, [str(name) for name in row], keys or {}))
        for column in columns:
            value = row[column]
            if value is None:
                raise Refused(f"{place}: {column} is null; it must be a text")
            if isinstance(value, _Nested):
                raise Refused(f"{place}: {column} is a JSON {value.kind}; it must be a text")
            if not str(value).strip():
                raise Refused(f"{place}: {column} is empty")
        yield place, {column: str(row[column]).strip() for column in columns}
