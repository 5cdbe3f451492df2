"""Joining results folders: files are copied whole, and no record is lost without a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from suites import merge
from suites.records.record import SCHEMA, Record, read_record, write_record

MakeRecord = Callable[..., Record]


def on(record: Record, uuid: str) -> Record:
    return replace(record, environment=replace(record.environment, uuid=uuid))


def joined(tmp_path: Path, *folders: str) -> int:
    return merge.main([*(str(tmp_path / name) for name in folders), "--output", str(tmp_path / "all")])


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.json")}


def test_records_of_several_machines_are_copied_byte_for_byte(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path / "a", make_record())
    write_record(tmp_path / "b", make_record(precision="fp16"))
    write_record(tmp_path / "b", make_record(machine="gpu-b"))
    before = files(tmp_path / "a") | files(tmp_path / "b")
    assert joined(tmp_path, "a", "b") == 0
    assert files(tmp_path / "all") == before
    assert f"{tmp_path / 'b'}: 2 records (2 copied); written by" in capsys.readouterr().out
    assert joined(tmp_path, "a", "b") == 0
    assert f"{tmp_path / 'b'}: 2 records (2 already there)" in capsys.readouterr().out
    assert files(tmp_path / "all") == before


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_of_two_records_of_a_device_the_better_wins_whole(
    order: tuple[str, str], make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    better = write_record(tmp_path / "a", make_record(measured_at="2026-01-01T00:00:00+00:00"))
    other = write_record(tmp_path / "b", make_record(outcome="failed", measured_at="2026-01-02T00:00:00+00:00"))
    assert joined(tmp_path, *order) == 0
    assert list(files(tmp_path / "all").values()) == [better.read_bytes()]
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" records ")[2].partition(";")[0] for line in lines if " records (" in line] == [
        {"a": "(1 copied)", "b": "(1 left out)"}[name] for name in order
    ]
    (line,) = (line for line in lines if "is kept" in line)
    assert line.index(str(tmp_path / "a")) < line.index(str(tmp_path / "b"))
    assert other.exists()


def test_records_of_another_device_become_those_of_another_machine(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = make_record(), on(make_record(samples=(2_000_000,) * 20), "GPU-1")
    write_record(tmp_path / "a", first)
    write_record(tmp_path / "b", second)
    write_record(tmp_path / "b", on(make_record(precision="fp16"), "GPU-1"))
    assert joined(tmp_path, "a", "b") == 0
    machines = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert machines[0] == "gpu-a"
    assert machines[1].startswith("gpu-a-")
    kept = [read_record(path) for path in sorted((tmp_path / "all" / machines[1]).rglob("*.json"))]
    assert {record.cell.precision for record in kept} == {"fp16", "fp32"}
    assert {record.environment.uuid for record in kept} == {"GPU-1"}
    assert second.measurements in [record.measurements for record in kept]
    assert "records of another device, GPU-1, are those of machine" in capsys.readouterr().out
    before = files(tmp_path / "all")
    assert joined(tmp_path, "b") == 0
    assert files(tmp_path / "all") == before


def test_a_record_of_a_later_version_is_copied_and_named(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path / "a", make_record(precision="fp16"))
    path = write_record(tmp_path / "a", make_record())
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": SCHEMA + 1}))
    assert joined(tmp_path, "a") == 1
    assert files(tmp_path / "all") == files(tmp_path / "a")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "cannot use it" in line)
    assert f"its schema {SCHEMA + 1} is newer than {SCHEMA}" in line


@pytest.mark.parametrize(("folders", "says"), [(["missing"], "has no records"), (["all"], "is the output")])
def test_folders_that_cannot_be_joined_are_refused(
    folders: list[str], says: str, make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path / "all", make_record())
    assert joined(tmp_path, *folders) == 2
    error = capsys.readouterr().err
    assert error.startswith("refused: ")
    assert says in error
    assert error.count("\n") == 1
