from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from suites.record import Record, read_records, write_record
from suites.report import write_tables


def test_tables_are_made_from_all_records(make_record: Callable[..., Record], tmp_path: Path) -> None:
    write_record(tmp_path, make_record())
    write_record(tmp_path, make_record(machine="gpu-b"))
    (table,) = write_tables(tmp_path)
    assert table == tmp_path / "tables" / "latency.md"
    assert table.read_text().count("\n## ") == 2


def test_without_records_there_is_no_table(tmp_path: Path) -> None:
    assert write_tables(tmp_path) == []


def test_a_file_that_is_no_record_is_named(make_record: Callable[..., Record], tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record())
    path.write_text("{}")
    with pytest.raises(ValueError, match="record"):
        write_tables(tmp_path)


def test_the_committed_tables_are_those_of_the_committed_records(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "results" / "records", tmp_path / "records")
    (table,) = write_tables(tmp_path)
    assert table.read_text() == (ROOT / "results" / "tables" / "latency.md").read_text()
    for record in read_records(tmp_path, "latency"):
        assert record.environment["machine"].startswith("nvidia-h200") or record.cell.device == "cpu"
