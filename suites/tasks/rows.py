"""Rows of a data set, from a file or from the hub, each with the place that a message about it names."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from suites.checks import Refused

Rows = Iterable[tuple[str, dict[str, Any]]]


def from_table(path: Path, columns: Sequence[str] | None = None) -> Rows:
    """Of a .csv file with a header, or of one with tabs, whose `columns` are given or in a header.

    Raises:
        Refused: there is no such file, or one of its lines is no UTF-8 or no row.
    """
    if path.is_dir():
        raise Refused(f"task.path={path} is a folder; give a .csv or .tsv file")
    if not path.is_file():
        raise Refused(f"task.path={path.parent} has no {path.name}")
    with path.open(encoding="utf-8-sig", newline="") as stream:
        tabs = columns is not None or path.suffix == ".tsv"
        # Files with tabs leave quotes in texts as they are.
        how: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {}
        reader = csv.DictReader(stream, columns, **how)
        try:
            for row in reader:
                yield f"{path}, line {reader.line_num}", row
        except UnicodeDecodeError:
            raise Refused(f"{path}, line {_undecodable(path)}: it is not UTF-8; save the file as UTF-8") from None
        except csv.Error as error:
            raise Refused(f"{path}, line {reader.line_num + 1}: {error}") from None


def _undecodable(path: Path) -> int:
    """The first line that is not UTF-8."""

    def readable(line: bytes) -> bool:
        try:
            line.decode()
        except UnicodeDecodeError:
            return False
        return True

    return next(number for number, line in enumerate(path.read_bytes().split(b"\n"), 1) if not readable(line))


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
        Refused: a column is missing or empty.
    """
    for place, row in rows:
        for column in columns:
            if row.get(column) is None:
                raise Refused(f"{place}: there is no column {column}; the task needs {', '.join(columns)}")
            if not str(row[column]).strip():
                raise Refused(f"{place}: {column} is empty")
        yield place, {column: str(row[column]).strip() for column in columns}
