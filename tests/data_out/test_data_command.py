"""The options of `suites.report` that write data."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from suites.records.record import Record, write_record
from suites.report import main

MakeRecord = Callable[..., Record]
REFERENCE = str(ROOT / "results" / "reference")
TIMES = [{"computeMs": 1.5, "latencyMs": 2.0}] * 3


@pytest.fixture
def results(make_record: MakeRecord, tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    write_record(folder, make_record())
    write_record(folder, make_record(machine="gpu-b", precision="fp16"))
    return folder


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("refused: ")
    assert output.err.count("\n") == 1
    return output.err.removeprefix("refused: ").strip()


def test_several_formats_are_written_and_no_tables(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: str(tmp_path / "new" / f"rows.{name}") for name in ("csv", "jsonl", "parquet")}
    assert main([str(results), *(word for name, file in files.items() for word in (f"--{name}", file))]) == 0
    assert capsys.readouterr().out.split() == list(files.values())
    of_csv = rows(Path(files["csv"]).read_text())
    of_json = [json.loads(line) for line in Path(files["jsonl"]).read_text().splitlines()]
    assert [row["machine"] for row in of_csv] == ["gpu-a", "gpu-a", "gpu-b", "gpu-b"]
    assert [row["p50_ms"] for row in of_json] == [float(row["p50_ms"]) for row in of_csv] == [1.0, 0.5, 1.0, 0.5]
    assert Path(files["parquet"]).read_bytes()[:4] == b"PAR1"
    assert not list(results.glob("*/tables"))


def test_standard_output_has_only_the_rows(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = str(tmp_path / "rows.csv")
    assert main([str(results), "--jsonl", "-", "--csv", other]) == 0
    output = capsys.readouterr()
    assert [json.loads(line)["precision"] for line in output.out.splitlines()] == ["fp32", "fp32", "fp16", "fp16"]
    assert output.err.strip() == other


def test_machine_and_suite_select_rows(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(results), "--csv", "-", "--machine", "b", "--suite", "latency"]) == 0
    assert {row["machine"] for row in rows(capsys.readouterr().out)} == {"gpu-b"}


def test_a_file_that_is_not_a_record_gives_status_1(
    results: Path, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_record(results, make_record(precision="int8"))
    path.write_text("{}")
    assert main([str(results), "--csv", "-"]) == 1
    output = capsys.readouterr()
    assert f"skipped: {path}: " in output.err
    assert len(rows(output.out)) == 4


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--csv", "-", "--machine", "intel"], "there are no records of machine intel; choices: gpu-a, gpu-b"),
        (["--csv", "-", "--suite", "accuracy"], "there are no records of suite accuracy; choices: latency"),
        (["--parquet", "-"], "--parquet - is not supported, because Parquet is not text"),
        (["--csv", "-", "--jsonl", "-"], "--csv and --jsonl both write to -; give two files"),
        (["--csv", "a", "--jsonl", "./a"], "--csv and --jsonl both write to ./a; give two files"),
        (["--csv", ""], "--csv has no file; give one such as rows.csv"),
        (["--csv", "."], "--csv . is a folder; give a file such as ./rows.csv"),
        (["--machine", "a"], "--machine is for exported data; add --csv FILE, --jsonl FILE or --parquet FILE"),
        (["--trtexec", "times.json"], "--trtexec is for exported data; add --csv FILE"),
        (["--csv", "-", "--label", "a"], "--label describes a file of trtexec; add --trtexec FILE"),
        (["--batch", "3"], "--batch describes a file of trtexec"),
        (["--csv", "-", "--trtexec", "times.json"], "--trtexec needs a name for its times; add --label NAME"),
        (
            ["--csv", "-", "--trtexec", "times.json", "--label", "a", "--batch", "0"],
            "--batch 0 must be between 1 and",
        ),
        (["--csv", "-", "--trtexec", "no.json", "--label", "a"], "--trtexec no.json is not a file"),
        (["--trtexec-command", "gpu", "--csv", "-"], "prints commands and writes no data; leave out --csv"),
        (["--trtexec-command", "gpu"], "has no cell gpu; give the id of a cell or the file of a record"),
        (["--trtexec-command", "tiny-null-fp32-000000000000"], "did you mean tiny-null-fp32-"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    arguments: list[str],
    reason: str,
    results: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(results.parent)
    Path("times.json").write_text(json.dumps(TIMES))
    assert reason in refusal(["results", *arguments], capsys)
    assert not Path("a").exists()


def test_a_folder_without_records_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "rows.csv"
    assert "has no records" in refusal([str(tmp_path / "nowhere"), "--csv", str(target)], capsys)
    assert not target.exists()


def test_records_of_other_suites_have_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    reason = refusal([REFERENCE, "--csv", "-", "--suite", "switching"], capsys)
    assert reason == "the chosen records have no rows; only records of suite latency or accuracy have rows"


@pytest.mark.parametrize("name", ["csv", "jsonl", "parquet"])
def test_a_file_that_cannot_be_written_is_refused(
    name: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    target = str(tmp_path / "file" / "rows")
    reason = refusal([str(results), f"--{name}", target], capsys)
    assert reason.startswith(f"--{name} ")
    assert "cannot be written (" in reason
    assert reason.endswith("; choose another file")


def test_a_pipe_is_written_and_not_replaced(results: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert main([str(results), "--csv", str(pipe), "--machine", "gpu-a"]) == 0
    assert os.read(reader, 100).startswith(b"source,label,suite")
    os.close(reader)
    assert pipe.is_fifo()


def test_missing_pyarrow_is_refused_before_anything_is_written(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    other = tmp_path / "rows.csv"
    reason = refusal([str(results), "--csv", str(other), "--parquet", str(tmp_path / "rows.parquet")], capsys)
    assert f"run {sys.executable} -m pip install pyarrow" in reason
    assert not other.exists()


def test_times_of_trtexec_are_added_or_stand_alone(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = tmp_path / "times.json"
    times.write_text(json.dumps([{"computeMs": 1e-3}] * 3))
    words = ["--trtexec", str(times), "--label", "mine", "--batch", "2", "--sequence", "16", "--csv", "-"]
    assert main(words) == 0
    (alone,) = rows(capsys.readouterr().out)
    assert (alone["source"], alone["label"], alone["p50_ms"], alone["fastest"]) == ("trtexec", "mine", "0.001", "false")
    assert main([str(results), *words]) == 0
    added = rows(capsys.readouterr().out)
    assert [row["source"] for row in added] == ["suite"] * 4 + ["trtexec"]
    assert added[-1] == alone
    assert main([str(results), "--csv", "-"]) == 0
    assert rows(capsys.readouterr().out) == added[:-1], "the row of trtexec competes with the others"


@pytest.mark.parametrize("cell", ["bert_base-trt-fp16-ded98211d910", "ded98211d910"])
def test_commands_of_a_cell_are_a_shell_script(cell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([REFERENCE, "--trtexec-command", cell]) == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line) for line in lines if line and not line.startswith("#")]
    assert [words[0] for words in commands] == ["trtexec"] * 4 + ["polygraphy"]
    assert lines[0] == "# Cell bert_base-trt-fp16-ded98211d910: bert_base, tensorrt 8.6.0, fp16"
    assert "8d6456c40fba141c4cfe7fd329b09be85a36e9b5918f7c1fcc3cc3e6c23dd87d" in "".join(lines)
    assert max(len(line) for line in lines if line.startswith("#")) <= 120
    page = (ROOT / "docs" / "guides" / "data_out.md").read_text(encoding="utf-8")
    shown = page.split("# Build the engine of profile 0, 1x128.\n")[1].split(" ...\n")[0]
    assert f"# Build the engine of profile 0, 1x128.\n{shown}" in "\n".join(lines)


def test_the_file_of_a_record_names_its_cell(capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = Path(REFERENCE).glob("*h100*/records/latency/bert_base-trt-fp16-ded98211d910.json")
    assert main(["--trtexec-command", str(path)]) == 0
    assert "trtexec --onnx=model.onnx" in capsys.readouterr().out
    assert "is not a record" in refusal(["--trtexec-command", str(ROOT / "pyproject.toml")], capsys)


def test_every_cell_of_trt_in_the_reference_has_commands(capsys: pytest.CaptureFixture[str]) -> None:
    from backends.tensorrt_.equivalent_commands import onnx_commands
    from backends.vendor_tools import RecordedCell
    from suites.data_out.loaded_records import selected_records

    cells = [record.cell for record in selected_records(Path(REFERENCE)) if record.cell.backend == "trt"]
    assert len(cells) > 20
    for cell in cells:
        found = onnx_commands(RecordedCell(cell.release, cell.precision, cell.shapes, cell.options))
        assert len(found.commands) >= 3, cell.id


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("trt_plugin", "builds its network from plugins"),
        ("ort", "backend=ort has no equivalent commands; backends with"),
    ],
)
def test_a_backend_without_commands_is_refused(backend: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    from suites.data_out.loaded_records import selected_records

    records = selected_records(Path(REFERENCE), "h100", "latency")
    cell = next(record.cell.id for record in records if record.cell.backend == backend)
    assert reason in refusal([REFERENCE, "--trtexec-command", cell], capsys)
