"""Answers of jobs: records are stored where the command writes, and the exit status counts each failure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from suites.hydra_jobs.launched_invocation import LaunchedInvocation
from suites.hydra_jobs.launchers import Choice
from suites.hydra_jobs.sweep_folder import CellAnswer, RecordFile
from suites.records.record import Record, read_record, write_record
from suites.schema.config import RunConfig


@pytest.fixture
def invocation(tmp_path: Path) -> LaunchedInvocation:
    made = LaunchedInvocation(Choice("ray", ()), ["-m"])
    made.configs = [RunConfig(results=str(tmp_path / "results"))]
    made._cells = [["backend=null"]]
    return made


def file_of(folder: Path, record: Record) -> RecordFile:
    path = write_record(folder, record)
    return RecordFile(record.environment.machine, record.cell.suite, record.cell.id, path.read_text())


def test_a_record_of_a_node_without_a_shared_folder_is_stored(
    invocation: LaunchedInvocation, make_record: Callable[..., Record], tmp_path: Path
) -> None:
    record = make_record()
    invocation._ended(CellAnswer(0, "node1", 0, (), (file_of(tmp_path / "node", record),)))
    (stored,) = (tmp_path / "results").rglob("*.json")
    assert read_record(stored) == record
    assert invocation.status() == 0


@pytest.mark.parametrize(
    ("status", "messages", "expected"),
    [(1, (), 1), (2, ("refused: no GPU",), 2), (2, (), 2), (0, (), 0)],
)
def test_the_status_of_a_cell_without_a_record_counts(
    status: int, messages: tuple[str, ...], expected: int, invocation: LaunchedInvocation
) -> None:
    invocation._ended(CellAnswer(0, "node1", status, messages))
    assert invocation.status() == expected


@pytest.mark.parametrize("machine", ["gpu-a", "../gpu-a"])
def test_a_record_that_cannot_be_used_fails_the_cell_in_one_line(
    machine: str, invocation: LaunchedInvocation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    invocation._ended(CellAnswer(0, "node1", 0, (), (RecordFile(machine, "latency", "x", "{"),)))
    assert invocation.status() == 1
    assert capsys.readouterr().err.count("its record cannot be used: ") == 1
    assert not list(tmp_path.glob("gpu-a"))
