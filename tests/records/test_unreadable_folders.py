"""Folders of records that exist but cannot be read: they are named, and never treated as empty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import without_rights

from suites.records.record import Record, write_record
from suites.records.results_folder import MachineFolder, machine_folders
from suites.schema.refusals import Refused

MakeRecord = Callable[..., Record]


def test_a_results_folder_without_permission_is_refused(make_record: MakeRecord, tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_record(results, make_record())
    results.chmod(0)
    try:
        with without_rights(), pytest.raises(Refused, match=r"results cannot be read \(Permission denied\)"):
            machine_folders(results)
    finally:
        results.chmod(0o755)


def test_a_folder_of_records_without_permission_is_named(make_record: MakeRecord, tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record())
    path.parent.chmod(0)
    tmp_path.chmod(0o755)
    folder = MachineFolder(tmp_path, "gpu-a")
    try:
        with without_rights():
            assert folder.records("latency") == []
    finally:
        path.parent.chmod(0o755)
    # The folder of the former layout is below a parent that this user may not read either.
    assert folder.bad[path.parent] == "the folder cannot be read: Permission denied"


def test_a_missing_folder_is_empty(tmp_path: Path) -> None:
    assert machine_folders(tmp_path / "nowhere") == []
    assert MachineFolder(tmp_path, "gpu-a").records("latency") == []
