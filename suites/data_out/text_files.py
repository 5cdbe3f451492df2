"""Rows as text: CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from suites.data_out.data_row import COLUMNS, DataRow, Value

FORMULA = ("=", "+", "-", "@")
"""First characters of a text that a spreadsheet runs as a formula (OWASP, "CSV injection")."""


def csv_of(rows: Sequence[DataRow]) -> str:
    """Return the rows as CSV with a header.

    Lines end with a line feed. A missing value is empty. A text that begins with a character of `FORMULA` gets an
    apostrophe before it, so a spreadsheet shows it as text; numbers stay as they are.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([column.name for column in COLUMNS])
    writer.writerows([[_csv_value(value) for value in row.values()] for row in rows])
    return stream.getvalue()


def jsonl_of(rows: Sequence[DataRow]) -> str:
    """Return one JSON object per row and line. A missing value is null."""
    return "".join(f"{json.dumps(row.to_json(), ensure_ascii=False, allow_nan=False)}\n" for row in rows)


def _csv_value(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return repr(value)
