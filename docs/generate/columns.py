"""The table of the columns of exported data."""

from __future__ import annotations

from suites.data_out.data_row import COLUMNS
from suites.tables.markdown import markdown

NAMES = {str: "text", bool: "true or false", int: "whole number", float: "number"}


def column_table() -> str:
    """Return a markdown table with the name, the type and the help of each column."""
    return markdown(("column", "type", "content"), [(f"`{c.name}`", NAMES[c.type], c.help) for c in COLUMNS])
