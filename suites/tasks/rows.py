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
        Refused: there is no such file.
    """
    if not path.is_file():
        raise Refused(f"task.path={path.parent} has no {path.name}")
    with path.open(encoding="utf-8", newline="") as stream:
        tabs = columns is not None or path.suffix == ".tsv"
        # Files with tabs leave quotes in texts as they are.
        how: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {}
        reader = csv.DictReader(stream, columns, **how)
        for row in reader:
            yield f"{path}, line {reader.line_num}", row


def from_hub(hub: str, split: str, subset: str = "") -> Rows:
    """By the library `datasets`.

    Raises:
        Refused: it is not installed, or the hub cannot be reached.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise Refused(
            "give a local copy as task.path=, or pip install datasets to fetch the task from the hub"
        ) from None
    try:
        data = load_dataset(hub, subset or None, split=split)
    except Exception as error:  # the library raises whatever its HTTP client of the day raises
        raise Refused(f"{hub} cannot be fetched ({type(error).__name__}); give a local copy as task.path=") from None
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
