"""Rows of the record of suite=limits on the H100: shares of the SMs, and two clients of one GPU."""

from __future__ import annotations

from collections.abc import Sequence

from docs.generate.results import H100, REFERENCE
from suites.limits.limits_advice import sentences
from suites.limits.result import LimitsResult
from suites.limits.sharing_tables import COLUMNS as SHARING_COLUMNS
from suites.limits.sharing_tables import sharing_rows
from suites.limits.tables import CLIENT_COLUMNS, COLUMNS, client_rows, rows_of
from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.tables.markdown import fitted, wrapped

CELL = "bert_base-trt-fp16-28c154ae0820"
CLIENTS, LOADS = "Two clients:", "Two clients with loads:"


def limits_record() -> Record:
    """Return the record of BERT-base in FP16 through TensorRT's parser."""
    record = MachineFolder(REFERENCE, H100).record("limits", CELL)
    assert record is not None
    return record


def limits_result() -> LimitsResult:
    result = limits_record().result
    assert isinstance(result, LimitsResult)
    return result


def share_table() -> str:
    """Return the steps with a CUDA graph at each share, and the sentence about each shape."""
    rows = [row for row in rows_of(limits_record(), limits_result()) if row[COLUMNS.index("graph")] == "yes"]
    return _with_advice(fitted(COLUMNS, rows, 4), [f"{batch}x{tokens}:" for batch, tokens in limits_result().shapes])


def client_table() -> str:
    """Return the times of two clients that run steps back to back, and the sentence about them."""
    return _with_advice(fitted(CLIENT_COLUMNS, client_rows(limits_result()), 4), [CLIENTS])


def client_load_table() -> str:
    """Return the times of two clients with loads, and the sentences about them."""
    return _with_advice(fitted(SHARING_COLUMNS, sharing_rows(limits_result()), 2), [LOADS])


def _with_advice(table: str, beginnings: Sequence[str]) -> str:
    """Return the table and, as a list, the sentences of advice with one of these first words."""
    chosen = [text for text in sentences(limits_result()) if text.startswith(tuple(beginnings))]
    return "\n".join([table, "", *(wrapped(f"- {text}", "  ") for text in chosen)])
