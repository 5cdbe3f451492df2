"""Rows of exported data: figures, types and texts, and the three formats."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from suites.data_out.data_row import COLUMNS, DataRow
from suites.data_out.frames import frame_of, parquet_of
from suites.data_out.latency_data import NOT_CHOSEN, PASSES, latency_data
from suites.data_out.loaded_records import selected_records
from suites.data_out.record_data import accuracy_data
from suites.data_out.text_files import csv_of, jsonl_of
from suites.latency.figures import latency_rows
from suites.latency.ranking import rankings
from suites.records.parts import Maker
from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.statistics.validity import judged
from suites.tables.write_tables import rejected_cells

REFERENCE = ROOT / "results" / "reference"
H100 = "nvidia-h100-80gb-hbm3-driver-580.159.04"

MakeRecord = Callable[..., Record]


@pytest.fixture(scope="module")
def h100() -> list[DataRow]:
    return selected_records(REFERENCE, H100).rows()


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_times_are_those_of_the_table_in_ms(make_record: MakeRecord) -> None:
    record = make_record(samples=tuple(range(1_000_000, 1_000_000 + 200_000, 1000)))
    plain, graph = latency_data([record], {})
    (row,) = latency_rows([record], {})
    assert (plain.cuda_graph, graph.cuda_graph) == (False, True)
    for data, with_graph in ((plain, False), (graph, True)):
        time = row.times[with_graph]
        assert (data.p50_ms, data.p50_low_ms, data.p50_high_ms) == (time.p50 / 1e6, time.low / 1e6, time.high / 1e6)
        assert data.p50_ms == pytest.approx(1.0995 / (2 if with_graph else 1))
        assert data.p99_ms == (row.percentile(99, with_graph) or 0) / 1e6
        assert data.sequences_per_second == pytest.approx(2 / 1.0995e-3 * (2 if with_graph else 1))
    assert (plain.tokens, plain.clock, plain.processes, plain.samples, plain.cosine) == (32, "gpu", 1, 200, 0.99998)
    assert max(graph.sequences_per_second or 0, plain.sequences_per_second or 0) == row.sequences_per_second


def test_too_few_samples_give_no_percentile(make_record: MakeRecord) -> None:
    row = latency_data([make_record(samples=(1_000_000,) * 19)], {})[0]
    assert (row.p90_ms, row.p99_ms) == (None, None)


def test_only_the_faster_row_of_a_cell_is_fastest(make_record: MakeRecord) -> None:
    fast = make_record(backend="ort", samples=(1_000_000,) * 30)
    slow = make_record(backend="trt", samples=(9_000_000,) * 30)
    rows = latency_data([fast, slow], {})
    winners = {(row.backend, row.cuda_graph) for row in rows if row.fastest}
    ranking = rankings([fast, slow], {})[0]
    assert winners <= {("ort", True)}
    assert bool(winners) == ranking.rows[0].fastest
    assert {row.excluded for row in rows if row.backend == "trt"} == {ranking.rows[1].excluded}


def test_a_cell_that_a_search_did_not_choose_is_not_ranked(make_record: MakeRecord) -> None:
    fast, slow = make_record(backend="ort"), make_record(backend="trt", samples=(9_000_000,) * 20)
    rows = latency_data([fast, slow], {}, {fast.cell.id})
    assert {row.excluded for row in rows if row.backend == "ort"} == {NOT_CHOSEN}
    assert not any(row.fastest for row in rows if row.backend == "ort")


def test_a_cell_without_measurements_has_its_outcome(make_record: MakeRecord) -> None:
    record = make_record(outcome="unsupported", reason="no kernel", measurements=(), checks=())
    (row,) = latency_data([record], {})
    assert (row.outcome, row.reason, row.batch, row.sequence) == ("unsupported", "no kernel", 2, 16)
    assert (row.p50_ms, row.cuda_graph, row.fastest) == (None, None, False)


def test_times_of_passes_are_not_shown_as_times_of_a_batch(make_record: MakeRecord) -> None:
    (row,) = latency_data([make_record(lengths={"distribution": "full", "tokens": "auto", "passes": 2})], {})
    assert (row.p50_ms, row.excluded) == (None, PASSES)


def test_the_fastest_rows_of_the_reference_are_those_of_its_rankings(h100: list[DataRow]) -> None:
    folder = MachineFolder(REFERENCE, H100)
    rejected = rejected_cells(folder)
    competing = [record for record in folder.records("latency") if record.cell.id not in rejected]
    winners = {
        (item.row.record.cell.id, item.row.batch, item.row.sequence, item.row.graph)
        for ranking in rankings(competing, judged(folder.records("accuracy")))
        for item in ranking.winners
    }
    assert len(winners) > 10
    assert {(row.cell, row.batch, row.sequence, row.cuda_graph) for row in h100 if row.fastest} == winners


def test_rows_have_the_origin_of_their_record(make_record: MakeRecord) -> None:
    record = make_record(
        command=("python", "-m", "suites.run", "batch=[1, 8]"), maker=Maker("0.2.0", "abc1234", True),
        measured_at="2026-11-26T15:34:33+00:00", options={"cuda_graph": True, "threads": 2},
    )  # fmt: skip
    row = latency_data([record], {})[0]
    assert (row.machine, row.gpu, row.driver, row.device_uuid) == ("gpu-a", "GPU-A", "1.2", "GPU-0")
    assert row.command == "python -m suites.run 'batch=[1, 8]'"
    assert (row.suite_version, row.commit, row.uncommitted, row.harness) == ("0.2.0", "abc1234", True, 1)
    assert json.loads(row.options) == {"cuda_graph": True, "threads": 2}
    assert row.cell == record.cell.id
    assert latency_data([replace(record, maker=None)], {})[0].uncommitted is None


def test_accuracy_records_give_scores_and_no_times(h100: list[DataRow]) -> None:
    folder = MachineFolder(REFERENCE, "cpu-amd-epyc-2-cores")
    rows = accuracy_data(folder.records("accuracy"))
    scored = [row for row in rows if row.score is not None]
    assert len(scored) > 10
    assert all(row.suite == "accuracy" and row.p50_ms is None and row.task and row.metric for row in scored)
    assert all(row.difference == pytest.approx(row.score - row.reference_score) for row in scored)  # type: ignore[operator]
    assert any(row.difference_low is not None and row.verdict for row in scored)
    assert any(row.suite == "accuracy" for row in h100)


def test_every_column_has_help_and_the_type_of_its_field() -> None:
    assert [column.name for column in COLUMNS] == [item.name for item in fields(DataRow)]
    assert all(column.help.endswith(".") for column in COLUMNS)
    expected = {str: "str", bool: "bool | None", int: "int | None", float: "float | None"}
    assert [item.type for item in fields(DataRow)] == [expected[column.type] for column in COLUMNS]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_missing(value: float) -> None:
    assert DataRow(score=value).score is None


def test_texts_are_one_line_without_control_characters() -> None:
    row = DataRow(model="a\nb\x1b[31m\u202ec\x00", reason="tab\there")
    assert row.model == "a b\\x1b[31m\\u202ec\\x00"
    assert row.reason == "tab here"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("x","y")'])
def test_a_text_that_a_spreadsheet_would_run_is_escaped_in_csv_only(text: str) -> None:
    rows = [DataRow(model=text, difference=-0.5)]
    (line,) = parsed(csv_of(rows))
    assert (line["model"], line["difference"]) == (f"'{text}", "-0.5")
    assert json.loads(jsonl_of(rows))["model"] == text


def test_the_formats_have_the_same_values(h100: list[DataRow], tmp_path: Path) -> None:
    import pyarrow.parquet

    of_json = [json.loads(line) for line in jsonl_of(h100).splitlines()]
    (tmp_path / "rows.parquet").write_bytes(parquet_of(h100))
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet")
    assert of_json == [row.to_json() for row in h100] == table.to_pylist()
    assert table.schema.field("p50_ms").metadata[b"description"].startswith(b"Median time")
    of_csv = parsed(csv_of(h100))
    assert list(of_csv[0]) == [column.name for column in COLUMNS]
    assert [float(line["p50_ms"]) if line["p50_ms"] else None for line in of_csv] == [row.p50_ms for row in h100]
    assert {line["fastest"] for line in of_csv} == {"", "true", "false"}
    assert [line["options"] for line in of_csv] == [row.options for row in h100]


def test_parquet_has_the_types_of_columns_that_are_empty() -> None:
    import pyarrow.parquet

    schema = pyarrow.parquet.read_table(io.BytesIO(parquet_of([DataRow()]))).schema
    arrow_types: dict[type[Any], str] = {str: "string", bool: "bool", int: "int64", float: "double"}
    assert [str(kind) for kind in schema.types] == [arrow_types[column.type] for column in COLUMNS]


def test_a_frame_has_types_with_missing_values(h100: list[DataRow]) -> None:
    frame = frame_of(h100)
    assert list(frame.columns) == [column.name for column in COLUMNS]
    assert len(frame) == len(h100)
    kinds = {str: "string", bool: "boolean", int: "Int64", float: "float64"}
    assert {column.name: str(frame[column.name].dtype) for column in COLUMNS} == {
        column.name: kinds[column.type] for column in COLUMNS
    }
    accuracy = frame[frame.suite == "accuracy"]
    assert accuracy.batch.isna().all()
    assert frame_of([]).columns.tolist() == frame.columns.tolist()
