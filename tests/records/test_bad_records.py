"""Files that are not valid records: they are named and skipped, and tables are made from the others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Cli, Measured, table_in, without_starts

from backends.null_.null import Costs
from suites import advise, report, search
from suites.records.record import Record, read_record, write_record
from suites.records.results_folder import MachineFolder
from suites.tables.write_tables import MAX_BAD_LINES

MakeRecord = Callable[..., Record]
LENGTHS = {"distribution": "texts", "tokens": "text", "task": "stsb"}

CONTENTS = {
    "empty": "",
    "spaces": " \n",
    "list": "[]",
    "object": "{}",
    "null": "null",
    "text": '"record"',
    "cut": '{"schema": 2, "cell": {"suite": "late',
    "deep": "[" * 100_000,
    "deep object": '{"schema": 1, "cell": ' * 5000,
    "newer": '{"schema": 3}',
    "boolean schema": '{"schema": true}',
    "endless number": '{"schema": 1' + "0" * 5000 + "}",
}
"""What may be in a file instead of a record."""

CHANGES: dict[str, Any] = {
    "cell": {},
    "cell.model": 5,
    "cell.model/": "../../pwn",
    "cell.suite": "../latency",
    "cell.shapes": [],
    "cell.shapes.0": [2, "16"],
    "cell.shapes/": [[1]],
    "cell.lengths": {},
    "cell.options": [],
    "cell.options.profiles": 3,
    "environment": {},
    "environment.machine": "../../x",
    "environment.machine/": "another",
    "environment.driver": None,
    "measurements": {},
    "measurements.0": {},
    "measurements.0.samples": [],
    "measurements.0.samples/": ["1"],
    "measurements.0.samples//": [float("nan")],
    "measurements.0.batch": "2",
    "measurements.0.telemetry": {"memory_bytes": "much"},
    "checks": [{}],
    "checks.0.cosine": "1",
    "facts": [],
    "artifacts.inputs": [],
    "artifacts.inputs.notes.shapes": {"2x16": {}},
    "outcome": "perfect",
    "reason": ["x"],
    "command": "python",
    "harness": "2",
    "schema": 7,
}
"""Parts of a sound record and what may be in their place; slashes tell cases of one part from one another."""


def changed(path: Path, part: str, value: Any) -> None:
    """Write a value into a record's file, in the first schema, which has no digest."""
    data = json.loads(path.read_text())
    del data["digest"]
    data["schema"] = 1
    *keys, last = [int(key) if key.isdigit() else key for key in part.rstrip("/").split(".")]
    place = data
    for key in keys:
        place = place[key]
    place[last] = value
    path.write_text(json.dumps(data))


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_file_that_is_not_a_record_is_skipped(
    content: str, make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_record(tmp_path, make_record()).with_name("none-null-fp32-0123456789ab.json")
    bad.write_text(content)
    assert report.main([str(tmp_path)]) == 1
    (line,) = lines_of(capsys)
    assert line.startswith(f"skipped: {bad}: ")
    assert "null 1.0" in table_in(tmp_path, "latency").read_text()


@pytest.mark.parametrize("part", CHANGES)
@pytest.mark.parametrize("suite", ["latency", "accuracy"])
def test_a_record_with_wrong_content_is_skipped(
    suite: str, part: str, make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path, make_record())
    write_record(tmp_path, make_record(suite="accuracy", lengths=LENGTHS, outcome="unsupported", reason="none"))
    bad = write_record(tmp_path, make_record(suite=suite, lengths=LENGTHS, precision="fp16"))
    changed(bad, part, CHANGES[part])
    assert report.main([str(tmp_path)]) == 1
    (line,) = lines_of(capsys)
    assert line.startswith(f"skipped: {bad}: ")
    assert "| null    | fp32 " in table_in(tmp_path, "latency").read_text()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "gpu-a"]


def test_a_fault_that_only_a_table_detects_skips_the_record(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No shape of this record has tokens, and a row needs them for its rate."""
    write_record(tmp_path, make_record())
    bad = write_record(tmp_path, make_record(precision="fp16"))
    changed(bad, "artifacts", {})
    assert report.main([str(tmp_path)]) == 1
    (line,) = lines_of(capsys)
    assert line.startswith(f"skipped: {bad}: no table can be made from it: ")
    table = table_in(tmp_path, "latency").read_text()
    assert ("| fp32 " in table, "| fp16 " in table) == (True, False)


def test_entries_that_are_not_regular_files_do_not_stop_a_report(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_record(tmp_path, make_record()).parent
    os.mkfifo(folder / "a.json")
    (folder / "b.json").mkdir()
    (folder / "c.json").symlink_to(folder / "nowhere")
    (folder / "d.json").symlink_to("/dev/zero")
    (folder / "e.json").write_bytes(b"\xff\xfe{}")
    assert report.main([str(tmp_path)]) == 1
    assert [line.split(": ")[1][-6:] for line in lines_of(capsys)] == [f"{name}.json" for name in "abcde"]


def test_many_bad_files_give_a_few_lines(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_record(tmp_path, make_record()).parent
    for number in range(100):
        (folder / f"{number}.json").write_text("[]")
    assert report.main([str(tmp_path)]) == 1
    *lines, last = lines_of(capsys)
    assert len(lines) == MAX_BAD_LINES
    assert last == f"skipped: {100 - MAX_BAD_LINES} more"


def test_advice_is_given_despite_a_bad_record(
    measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_record(tmp_path / "results", measured(Costs(step_ms=0.1)))
    good.with_name("bad.json").write_text("{}")
    trace = tmp_path / "trace"
    trace.write_text("1 16\n2 16\n")
    assert advise.main([str(trace), f"results={tmp_path / 'results'}"]) == 1
    output = capsys.readouterr()
    assert "Use null" in output.out
    assert f"skipped: {good.with_name('bad.json')}: " in output.err


def test_a_broken_file_with_the_name_of_a_cell_is_replaced(cli: Cli, tmp_path: Path) -> None:
    quick = ("backend=null", "suite.seconds=0.05", "suite.warm_up_s=0.05", "suite.min_samples=3", "batch=[2]")
    assert cli(*quick, "sequence=[16]").returncode == 0
    (path,) = (tmp_path / "results").rglob("*.json")
    path.write_text("[]")
    stray = path.with_name("stray.json")
    stray.write_text("{")
    done = cli(*quick, "sequence=[16]")
    assert done.returncode == 1
    assert read_record(path).outcome == "ok"
    ended, left_out = without_starts(done.stderr)
    assert ended.startswith("ok")
    assert left_out.startswith(f"skipped: {stray}: ")
    assert table_in(tmp_path / "results", "latency").exists()


def test_the_search_table_names_the_step_without_a_record(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timed = write_record(tmp_path, make_record())
    steps = [{"held": [], "content": False, "accuracy": "gone-0123456789ab", "latency": timed.stem}]
    scores = {"held": None, "parts": ["a"], "ended": False, "cosine": 0.9, "tolerance": 0.01, "steps": steps}
    write_record(tmp_path, make_record(suite="search", lengths=LENGTHS, scores=scores, measurements=()))
    timed.write_text("[]")
    assert report.main([str(tmp_path)]) == 1
    assert "| no record " in table_in(tmp_path, "search").read_text()
    assert len(lines_of(capsys)) == 1


def test_a_search_writes_its_tables_despite_a_bad_record(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timed = write_record(tmp_path, make_record())
    judged = make_record(suite="accuracy", lengths=LENGTHS, scores={"nonfinite": 3}, measurements=())
    accuracy = write_record(tmp_path, judged)
    bad = timed.with_name("bad.json")
    bad.write_text("{}")
    steps = [{"held": [], "content": True, "accuracy": accuracy.stem, "latency": timed.stem}]
    scores = {"held": [], "parts": ["a"], "ended": False, "cosine": 0.9, "tolerance": 0.01, "steps": steps}
    record = make_record(suite="search", lengths=LENGTHS, scores=scores, measurements=())

    def run(self: search.Search) -> Record:
        self.request = SimpleNamespace(results=tmp_path)  # type: ignore[assignment]
        write_record(tmp_path, record)
        return record

    monkeypatch.setattr(search.Search, "run", run)
    assert search.main(["backend=null"]) == 1
    (line,) = lines_of(capsys)
    assert line.startswith(f"skipped: {bad}: ")
    assert "3 NaN or Inf" in table_in(tmp_path, "search").read_text()
    assert table_in(tmp_path, "latency").exists()
    assert table_in(tmp_path, "accuracy").exists()


def test_a_record_under_the_name_of_another_record_is_skipped(make_record: MakeRecord, tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record())
    for place in (path.with_name("copy-of-it.json"), tmp_path / "gpu-b" / "records" / "latency" / path.name):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(path.read_text())
        folder = MachineFolder(tmp_path, place.parents[2].name)
        assert [record.cell.id for record in folder.records("latency")] == [path.stem] * (place.parent == path.parent)
        assert list(folder.bad) == [place]
