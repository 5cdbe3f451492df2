"""Rows as a pandas DataFrame and as a Parquet file. Both libraries are optional."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from suites.data_out.data_row import COLUMNS, DataRow
from suites.schema.refusals import Refused

if TYPE_CHECKING:
    import pandas as pd

PANDAS_TYPES = {str: "string", bool: "boolean", int: "Int64", float: "float64"}
"""Types that have missing values."""


def frame_of(rows: Sequence[DataRow]) -> pd.DataFrame:
    """Return a DataFrame with the columns of `DataRow`. A missing value is NaN, or NA in a column of whole numbers.

    Raises:
        Refused: pandas is not installed.
    """
    pandas = optional_library("pandas", "a DataFrame")
    return pandas.DataFrame(
        {
            column.name: pandas.Series([getattr(row, column.name) for row in rows], dtype=PANDAS_TYPES[column.type])
            for column in COLUMNS
        }
    )


def parquet_of(rows: Sequence[DataRow]) -> bytes:
    """Return a Parquet file with the columns of `DataRow`. Each column has its help as `description`.

    Raises:
        Refused: pyarrow is not installed.
    """
    arrow, parquet = (optional_library(name, "--parquet") for name in ("pyarrow", "pyarrow.parquet"))
    types = {str: arrow.string(), bool: arrow.bool_(), int: arrow.int64(), float: arrow.float64()}
    schema = arrow.schema(
        [arrow.field(column.name, types[column.type], metadata={"description": column.help}) for column in COLUMNS]
    )
    stream = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist([dict(row.to_json()) for row in rows], schema=schema), stream)
    return stream.getvalue()


def optional_library(module: str, purpose: str) -> Any:
    """Import a library that is not a dependency of the project.

    Raises:
        Refused: it is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise Refused(
            f"{purpose} needs {name}, which is not installed; run {sys.executable} -m pip install {name}"
        ) from None
