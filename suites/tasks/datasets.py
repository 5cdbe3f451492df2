"""Rows of a data set, from a file or from the hub. Each row has a place (file and line) for error messages.

pyarrow reads Parquet and Arrow files, and the library datasets reads the hub. The standard library reads text: pandas
and pyarrow do not give the line of a faulty row, accept a row that is too short, and change the type of values.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from suites.schema.config import TaskConfig
from suites.schema.refusals import Refused, decoded, is_file, read_bytes, shortened
from suites.tasks.delimited import Malformed, read_delimited

Rows = Iterable[tuple[str, dict[str, object]]]

JSON_LINES = (".jsonl", ".ndjson", ".json")

INDEX_COLUMNS = ("id", "idx", "index", "guid")
"""Names of columns that number the rows."""

COLUMNAR = (".parquet", ".arrow", ".feather")
"""Extensions of the files that pyarrow reads."""

TABLES = (".csv", ".tsv", ".tab", *JSON_LINES, *COLUMNAR)
"""Extensions of tables that `from_table` reads. A .txt file is a table or has one text per line."""

OTHER_FORMATS = (".xlsx", ".xls", ".ods", ".gz", ".zip", ".bz2", ".xz", ".pkl")
"""Common formats of tables that this module does not read."""

EXPECTED = "a .csv, .tsv, .jsonl or .parquet file"


def from_table(
    path: Path, columns: Sequence[str], keys: Mapping[str, str] | None = None, key: str = "task.path"
) -> Rows:
    """Yield the rows of a file with a header (.csv, .tsv, .txt), with one JSON object per line (.jsonl), or of Parquet.

    The header of a text file gives the delimiter.

    Args:
        columns: the columns that every row must have.
        keys: for each column that the user can name, the key of the configuration with this name.
        key: the key of the configuration that names the file.

    Raises:
        Refused: there is no such file, it is empty or not UTF-8, or a line is not a row with these columns.
    """
    suffix = path.suffix.lower()
    if not is_file(path):
        if os.path.isdir(path):
            raise Refused(f"{key}={path} is a folder; give {EXPECTED}")
        raise Refused(f"{key}={path.parent} has no {path.name}; give the path of {EXPECTED}")
    if suffix in OTHER_FORMATS:
        raise Refused(f"{path}: {suffix} files are not supported; save the table as .csv, .tsv, .jsonl or .parquet")
    data = read_bytes(key, path)
    if not data.strip():
        raise Refused(f"{path} is empty; give {EXPECTED} with one row for each example")
    if suffix in COLUMNAR:
        yield from _from_columns(path, data, columns, keys or {})
        return
    text = decoded(str(path), data)
    yield from _from_json(path, text) if suffix in JSON_LINES else _with_header(path, text, columns, keys or {})


def _from_columns(path: Path, data: bytes, columns: Sequence[str], keys: Mapping[str, str]) -> Rows:
    """Yield the rows of a Parquet or Arrow file. Values keep their types; a list of the file is a list."""
    try:
        import pyarrow
        from pyarrow import feather, parquet
    except ImportError:
        raise Refused(
            f"{path}: pyarrow is not installed; pip install pyarrow (the extra [data]), or save the table as .csv"
        ) from None
    read = parquet.read_table if path.suffix.lower() == ".parquet" else feather.read_table
    try:
        table = read(pyarrow.BufferReader(data))
    except (pyarrow.ArrowException, OSError) as error:
        fault = shortened((str(error).strip().splitlines() or [type(error).__name__])[0].rstrip("."))
        raise Refused(f"{path} cannot be read as {path.suffix.lower()} ({fault}); write the file again") from None
    if missing := [column for column in columns if column not in table.column_names]:
        raise Refused(_no_columns(str(path), missing, table.column_names, keys))
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{path}, row {number}", row


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
        raise Refused(f"task.path={path.parent} has no {path.name}; give a folder with this file")
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
            yield where, row


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


def rows_of(config: TaskConfig, columns: Sequence[str], keys: Mapping[str, str]) -> Rows:
    """Yield the rows of `task.path`, or without it those of `task.hub`. All rows have the `columns`.

    Raises:
        Refused: neither is given, a row lacks a column (the message names those that exist), or there are no rows.
    """
    if not config.path and not config.hub:
        raise Refused(f"task={config.name} needs task.path=FILE, or task.hub= with .subset, .split and its columns")
    path = Path(config.path)
    rows = from_table(path, columns, keys) if config.path else from_hub(config.hub, config.split, config.subset)
    place = ""
    for place, row in rows:
        if missing := [column for column in columns if column not in row]:
            raise Refused(_no_columns(place, missing, [str(name) for name in row], keys))
        yield place, row
    if not place:
        raise Refused(f"{config.path or config.hub} has no texts; give a data set with at least one row")


def column_keys(config: TaskConfig, *names: str) -> dict[str, str]:
    """Return the key of the configuration for each column that the keys task.NAME name.

    Raises:
        Refused: a key is empty, or two keys name the same column.
    """
    keys: dict[str, str] = {}
    for name in names:
        column = str(getattr(config, name))
        if not column:
            example = {"pair": "text2"}.get(name, name)
            raise Refused(f"task.{name}= is empty; give the name of a column, e.g. task.{name}={example}")
        if column in keys:
            raise Refused(f"{keys[column]} and task.{name} are both {column}; give two columns, or remove task.{name}")
        keys[column] = f"task.{name}"
    return keys


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
        yield place, {column: text_of(place, column, row[column]) for column in columns}


def text_of(place: str, column: str, value: object) -> str:
    """Return a value as stripped text.

    Raises:
        Refused: it is empty, or not a text.
    """
    if value is None or value != value:
        raise Refused(f"{place}: {column} is {'null' if value is None else 'NaN'}; give a text, or remove the row")
    if isinstance(value, bytes):
        raise Refused(f"{place}: {column} is binary; write the column as text")
    if isinstance(value, dict | list):
        kind = "a list" if isinstance(value, list) else "an object"
        raise Refused(f"{place}: {column} is {kind}; give one text, or name another column")
    if not (text := str(value).strip()):
        raise Refused(f"{place}: {column} is empty; give a text, or remove the row")
    return text


def number_of(place: str, column: str, value: object) -> float:
    """Return a value as a finite number.

    Raises:
        Refused: it is not one.
    """
    text = str(value)
    try:
        number = math.nan if "_" in text else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        shown = "null" if value is None else repr(shortened(text))
        raise Refused(f"{place}: {column} is {shown}; it must be a number")
    return number


def is_blank(value: object) -> bool:
    """Return whether a cell of a table has no value. The numbers 0 and false are values."""
    return value is None or not str(value).strip()
