from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from suites.record import Record, read_record, write_record, write_whole
from suites.results_folder import read_records


def test_round_trip_through_a_file(make_record: Callable[..., Record], tmp_path: Path) -> None:
    record = make_record()
    path = write_record(tmp_path, record)
    assert path == tmp_path / "gpu-a" / "records" / "latency" / f"{record.cell.id}.json"
    assert read_record(path) == record
    assert list(read_records(tmp_path, "latency")) == [record]


def test_a_record_of_another_schema_is_not_read(make_record: Callable[..., Record], tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record())
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(ValueError, match="schema 99"):
        read_record(path)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_whole(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]
    assert path.read_text() == "old"
