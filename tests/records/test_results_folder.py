"""The layout of results: which files are read, which are written, and which are not touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT, Measured, table_in

from backends.null_.null import Costs
from suites import advise, load_records, merge, report
from suites.cli.invocation import Invocation
from suites.records import results_folder
from suites.records.record import Record, read_record, record_path, write_record
from suites.records.results_folder import MachineFolder, folders_to_read, machine_folders
from suites.running.pipeline import CellResult
from suites.schema.config import RunConfig
from suites.tables import touched, write_tables

MakeRecord = Callable[..., Record]
ACCURACY = {"distribution": "texts", "tokens": "text", "task": "stsb"}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the paths of the records that are read, in order."""
    paths: list[Path] = []
    monkeypatch.setattr(results_folder, "read_record", lambda path: paths.append(path) or read_record(path))
    return paths


def ended(results: Path, record: Record) -> Invocation:
    """Act as a command that has measured one cell."""
    return Invocation(ended=[CellResult(record, write_record(results, record), reused=False)])


def test_a_run_does_not_read_committed_records(make_record: MakeRecord, read: list[Path], tmp_path: Path) -> None:
    for machine in (ROOT / "results" / "reference").iterdir():
        (tmp_path / machine.name).symlink_to(machine)
    record = make_record()
    ended(tmp_path, record).report()
    assert read == [record_path(tmp_path, "gpu-a", record.cell)]


def test_a_run_reads_a_record_once_and_writes_the_tables_of_its_suite(
    make_record: MakeRecord, read: list[Path], tmp_path: Path
) -> None:
    for machine in ("gpu-a", "gpu-b"):
        write_record(tmp_path, make_record(machine=machine, precision="fp16"))
        write_record(tmp_path, make_record(machine=machine, suite="accuracy", lengths=ACCURACY, scores={}))
        write_record(tmp_path, make_record(machine=machine, suite="layers", outcome="failed"))
    ended(tmp_path, make_record()).report()
    assert sorted(path.relative_to(tmp_path).parts[:3:2] for path in read) == [
        ("gpu-a", "accuracy"), ("gpu-a", "latency"), ("gpu-a", "latency"),
    ]  # fmt: skip
    tables = Path("gpu-a", "tables", "tiny")
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*.md")} == {
        tables / "latency.md",
        tables / "gpu_and_request.md",
    }


def test_an_accuracy_record_also_updates_the_tables_that_it_judges(make_record: MakeRecord, tmp_path: Path) -> None:
    timed = make_record()
    ended(tmp_path, timed).report()
    assert "**invalid**: stsb" not in table_in(tmp_path, "latency").read_text()
    failed = make_record(suite="accuracy", lengths=ACCURACY, outcome="failed", reason="no figure")
    ended(tmp_path, failed).report()
    assert "**invalid**: stsb: failed: no figure" in table_in(tmp_path, "latency").read_text()


def test_git_ignores_the_results_of_runs() -> None:
    assert f"{RunConfig().results}/" in (ROOT / ".gitignore").read_text().splitlines()


def test_records_in_the_old_layout_are_read(make_record: MakeRecord, tmp_path: Path) -> None:
    new, old = make_record(), make_record(precision="fp16")
    write_record(tmp_path, new)
    path = write_record(tmp_path, old)
    former = tmp_path / "records" / "gpu-a" / "latency" / path.name
    former.parent.mkdir(parents=True)
    path.rename(former)
    (folder,) = machine_folders(tmp_path)
    assert folder.records("latency") == sorted([new, old], key=lambda record: record.cell.id)
    assert folder.record("latency", old.cell.id) == old
    assert report.main([str(tmp_path)]) == 0
    table = table_in(tmp_path, "latency").read_text()
    assert "| fp16 " in table
    assert "| fp32 " in table


def test_the_folder_of_one_machine_can_be_read_and_is_not_written_to(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path, make_record())
    write_record(tmp_path, make_record(machine="gpu-b"))
    one = tmp_path / "gpu-a"
    assert [folder.name for folder in folders_to_read(tmp_path)] == ["gpu-a", "gpu-b"]
    (folder,) = folders_to_read(one)
    assert (folder.name, len(folder.records("latency"))) == ("gpu-a", 1)
    assert [record.environment.machine for record in load_records(one)] == ["gpu-a"]
    for command in (report, merge):
        assert command.main([str(one)]) == 2
        error = capsys.readouterr().err
        assert f"{one} is the folder of one machine; give the folder above it, {tmp_path}" in error
        assert error.count("\n") == 1
    assert sorted(path.name for path in one.iterdir()) == ["records"]


def test_a_plot_is_in_the_folder_of_its_machine(measured: Measured, tmp_path: Path) -> None:
    write_record(tmp_path / "results", measured(Costs(step_ms=0.1)))
    trace = tmp_path / "trace"
    trace.write_text("1 16\n2 16\n")
    assert advise.main([str(trace), f"results={tmp_path / 'results'}"]) == 0
    assert [plot.parent for plot in tmp_path.rglob("*.svg")] == [tmp_path / "results" / "gpu-a" / "plots"]


def test_without_switching_records_the_refusal_names_a_folder_that_has_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace"
    trace.write_text("1 16\n")
    assert advise.main([str(trace), f"results={tmp_path}"]) == 2
    assert "choose results=results/reference" in capsys.readouterr().err


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_batch_writes_tables_once_at_its_end(
    interrupted: bool, make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Any] = []
    write = write_tables.write_machine
    monkeypatch.setattr(write_tables, "write_machine", lambda *args: written.append(args) or write(*args))

    def work() -> int:
        assert touched.waits()
        for precision in ("fp32", "fp16"):
            record = make_record(precision=precision)
            invocation = ended(tmp_path, record)
            touched.touched(tmp_path, "gpu-a", record.cell, "torch_eager/fp32")
            invocation.report()
        assert not written
        assert not list(tmp_path.rglob("*.md"))
        if interrupted:
            raise KeyboardInterrupt
        return 0

    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            touched.tables_at_end(work)
    else:
        assert touched.tables_at_end(work) == 0
    assert len(written) == 1
    assert not touched.waits()
    table = table_in(tmp_path, "latency").read_text()
    assert "| fp16 " in table
    assert "| fp32 " in table


def test_a_finished_cell_is_noted_immediately(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command may be interrupted before its other cells end."""
    from suites.cli import invocation

    file = tmp_path / "touched"
    monkeypatch.setenv(touched.TOUCHED, str(file))
    record = make_record()
    machine = SimpleNamespace(slug="gpu-a")
    asked = SimpleNamespace(
        cell={"model": "m", "precision": "p"}, backend="b", results=tmp_path, machine=machine, repeats=1
    )
    monkeypatch.setattr(invocation, "resolve", lambda config: asked)
    monkeypatch.setattr(
        invocation, "run_request", lambda *_: CellResult(record, tmp_path / "record.json", reused=False)
    )
    Invocation(configs=[RunConfig()]).measure()
    noted = [str(tmp_path), "gpu-a", "latency", record.cell.id, RunConfig.baseline, "gpu"]
    assert [json.loads(line) for line in file.read_text().splitlines()] == [noted]


def test_files_of_other_backends_are_not_read(make_record: MakeRecord, tmp_path: Path) -> None:
    records = [make_record(), make_record(model="-"), make_record(model="null-like", backend="ort")]
    for record in records:
        write_record(tmp_path, record)
    (tmp_path / "gpu-a" / "records" / "latency" / "tiny-trt-fp32-0.json").write_text("no JSON")
    folder = MachineFolder(tmp_path, "gpu-a")
    assert {record.cell.model for record in folder.records_of_backend("latency", "null")} == {"tiny", "-"}
    assert not folder.bad
