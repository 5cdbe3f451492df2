"""The command `compare`: pairs, verdicts, exit status, output, and refusals."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from suites.compare import main
from suites.comparing import sides
from suites.comparing.shift import LEAST_PROCESSES
from suites.records.record import Measurement, Record, write_record

MakeRecord = Callable[..., Record]
REFERENCE = ROOT / "results" / "reference"
MACHINES = sorted(folder.name for folder in REFERENCE.iterdir() if (folder / "records" / "latency").is_dir())
NOISE = (0.998, 1.001, 1.0, 1.002, 0.999)
Printed = pytest.CaptureFixture[str]


def processes(factor: float = 1.0, noise: Sequence[float] = NOISE, phase: str = "gpu") -> tuple[Measurement, ...]:
    """Return the measurements of one shape in several processes, in ns, with and without CUDA graph."""
    return tuple(
        Measurement(phase, 2, 16, graph, (round(1e6 * factor * each),) * 20, ((0, 20, 20),), True, process=number)
        for number, each in enumerate(noise)
        for graph in (False, True)
    )


@pytest.fixture
def write(make_record: MakeRecord, tmp_path: Path) -> Callable[..., Path]:
    """Write a record into a results folder of this test, and return its path."""

    def write_one(folder: str, factor: float = 1.0, **changes: Any) -> Path:
        changes = {"measurements": processes(factor), **changes}
        return write_record(tmp_path / folder, make_record(**changes))

    return write_one


def rows(out: str) -> list[dict[str, Any]]:
    return [row for pair in json.loads(out)["pairs"] for row in pair["rows"]]


def refusal(arguments: Sequence[object], capsys: Printed) -> str:
    """Return the refusal of a command after a check that it is one line and the exit status is 2."""
    assert main([*map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("refused: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_a_record_that_cannot_be_read_is_named_and_gives_status_1(
    write: Callable[..., Path], tmp_path: Path, capsys: Printed
) -> None:
    for backend in ("ort", "trt"):
        write("a", backend=backend)
    broken = write("a", backend="trt", precision="fp16")
    broken.write_text("{")
    assert main(["ort", "trt", "--records", str(tmp_path / "a")]) == 1
    printed = capsys.readouterr()
    assert "1 pair" in printed.out
    assert printed.err.startswith(f"skipped: {broken}: ")


@pytest.mark.parametrize("machine", MACHINES)
def test_a_reference_folder_equals_itself(machine: str, capsys: Printed) -> None:
    assert main([str(REFERENCE / machine), str(REFERENCE / machine), "--tolerance", "0", "--json"]) == 0
    out = capsys.readouterr().out
    enough = [row["a_processes"] >= LEAST_PROCESSES for row in rows(out)]
    verdicts = ["no difference found" if judged else "no verdict" for judged in enough]
    assert [row["verdict"] for row in rows(out)] == verdicts
    assert {row["ratio"] for row in rows(out)} == {1.0}
    assert json.loads(out)["a"]["without_partner"] == json.loads(out)["b"]["without_partner"] == []


@pytest.mark.parametrize(
    ("factor", "tolerance", "status", "verdict"),
    [
        (1.03, "0.02", 1, "slower"),
        (1.03, "2%", 1, "slower"),
        (1.03, "4%", 0, "slower"),
        (1 / 1.03, "0", 0, "faster"),
        (1.0005, "0", 0, "no difference found"),
    ],
)
def test_the_exit_status_says_whether_b_is_slower_beyond_the_tolerance(
    factor: float, tolerance: str, status: int, verdict: str, write: Callable[..., Path], capsys: Printed
) -> None:
    files = write("a"), write("b", factor)
    assert main([*map(str, files), "--tolerance", tolerance, "--json"]) == status
    found = rows(capsys.readouterr().out)
    assert [row["cuda_graph"] for row in found] == [False, True]
    assert {row["verdict"] for row in found} == {verdict}
    assert {row["beyond_tolerance"] for row in found} == {bool(status)}
    assert all(row["ratio"] == pytest.approx(factor, rel=1e-3) for row in found)
    assert all(row["a_processes"] == row["b_processes"] == 5 and row["smallest_found"] < 0.02 for row in found)


def test_the_table_fits_in_80_columns_and_is_sorted(
    write: Callable[..., Path], tmp_path: Path, capsys: Printed
) -> None:
    write("a", model="m" * 60)
    write("b", model="m" * 60)
    for folder, factor in (("a", 1.0), ("b", 1234.5)):
        write(folder, factor, precision="fp16")
    write("a", precision="bf16")
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert text.index("tiny-null-fp16") < text.index("mmmm-null-fp32"), "slower pairs come first"
    assert "2x16 graph" in text
    assert "2 pairs, 4 rows: 2 slower, 0 faster, 2 no difference found." in text
    assert "2 rows slower by more than the tolerance of 0.02." in text
    assert "1 record of A without a partner: tiny-null-bf16-" in text


def test_one_process_has_no_verdict(write: Callable[..., Path], capsys: Printed) -> None:
    files = [
        write(folder, factor, measurements=processes(factor, NOISE[:1])) for folder, factor in (("a", 1), ("b", 2))
    ]
    assert main([*map(str, files)]) == 0
    out = capsys.readouterr().out
    assert "note: no verdict: a side has 1 process, and 3 are needed" in out
    assert "2 rows without a verdict" in out
    assert "unknown" in out


def test_backends_are_paired_by_everything_else(write: Callable[..., Path], tmp_path: Path, capsys: Printed) -> None:
    for precision in ("fp32", "fp16"):
        write("r", backend="torch_eager", release="torch 2", precision=precision)
        write(
            "r",
            0.8,
            backend="ort",
            release="ort 1",
            precision=precision,
            options={"cuda_graph": True, "fusion": "auto"},
        )
    write("r", backend="ort", release="ort 1", precision="int8")
    write("r", backend="ort", release="ort 1", options={"cuda_graph": True, "threads": 3})
    assert main(["torch_eager", "ort", "--records", str(tmp_path / "r"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [pair["a"]["cell"].split("-")[2] for pair in data["pairs"]] == ["fp16", "fp32"]
    assert {row["verdict"] for pair in data["pairs"] for row in pair["rows"]} == {"faster"}
    assert len(data["b"]["without_partner"]) == 2


def test_cell_ids_name_records(write: Callable[..., Path], tmp_path: Path, capsys: Printed) -> None:
    a, b = write("r").stem, write("r", 1.1, precision="fp16").stem
    assert main([a, b, "--records", str(tmp_path / "r")]) == 1
    assert "note: cells differ in precision (fp32 and fp16)" in capsys.readouterr().out
    write("r", machine="gpu-b")
    assert f"{a} was measured on several machines: gpu-a, gpu-b; choose one with --machine" in refusal(
        [a, b, "--records", tmp_path / "r"], capsys
    )
    assert main([a, a, "--records", str(tmp_path / "r"), "--machine", "gpu-b"]) == 0


def test_records_with_other_outcomes_are_counted(write: Callable[..., Path], tmp_path: Path, capsys: Printed) -> None:
    write("a")
    write("a", precision="fp16", outcome="failed", reason="no memory", measurements=())
    assert main([str(tmp_path / "a"), str(tmp_path / "a")]) == 0
    assert "left out: 1 record: outcome failed" in capsys.readouterr().out


ENVIRONMENT = {"machine": "gpu-a", "gpu": "GPU-A", "driver": "1.2", "uuid": "GPU-0", "power_limit_w": 700.0}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("gpu", "GPU-B", "GPU: GPU-A and GPU-B"),
        ("driver", "1.3", "driver: 1.2 and 1.3"),
        ("power_limit_w", 500.0, "power limit in W: 700 and 500"),
        ("max_sm_clock_mhz", 1410, "clock policy (maximum SM clock in MHz): unknown and 1410"),
        ("uuid", "GPU-1", "device: GPU-0 and GPU-1"),
    ],
)
def test_other_conditions_are_refused_unless_allowed(
    key: str, value: object, says: str, write: Callable[..., Path], capsys: Printed
) -> None:
    files = write("a", environment=ENVIRONMENT), write("b", 1.5, environment={**ENVIRONMENT, key: value})
    error = refusal(files, capsys)
    assert says in error
    assert "--allow-other-conditions" in error
    assert main([*map(str, files), "--allow-other-conditions"]) == 1
    assert f"Different conditions: {says}" in " ".join(capsys.readouterr().out.split())


def test_another_version_of_the_timing_is_refused(write: Callable[..., Path], capsys: Printed) -> None:
    assert "version of the timing: 1 and 2" in refusal([write("a", harness=1), write("b", harness=2)], capsys)


def test_sides_without_a_common_cell_name_the_difference(
    write: Callable[..., Path], tmp_path: Path, capsys: Printed
) -> None:
    write("a")
    write("b", release="null 1.1")
    error = refusal([tmp_path / "a", tmp_path / "b"], capsys)
    assert "no cell in common; the nearest cells differ in release (null 1.0 and null 1.1)" in error


def test_records_without_a_common_shape_name_their_shapes(write: Callable[..., Path], capsys: Printed) -> None:
    other = tuple(replace(measurement, batch=4) for measurement in processes())
    error = refusal([write("a"), write("b", shapes=((4, 16),), measurements=other)], capsys)
    assert "no shape in common: A has 2x16 (GPU times) and B has 4x16 (GPU times)" in error
    host = processes(phase="latency")
    assert "B has 2x16 (host latencies)" in refusal([write("a"), write("b", measurements=host)], capsys)


@pytest.mark.parametrize("tolerance", ["much", "", "-1", "nan", "inf", "3%%", "1000%1"])
def test_a_tolerance_that_is_not_a_number_is_refused(
    tolerance: str, write: Callable[..., Path], capsys: Printed
) -> None:
    path = write("a")
    error = refusal([path, path, f"--tolerance={tolerance}"], capsys)
    assert f"--tolerance {tolerance} must be a number from 0 to 10 or a percentage" in error


def test_a_side_that_does_not_exist_names_the_nearest(
    write: Callable[..., Path], tmp_path: Path, capsys: Printed
) -> None:
    path, records = write("r"), ["--records", tmp_path / "r"]
    assert "did you mean torch_eager?" in refusal([path, "torch_eagr", *records], capsys)
    assert f"did you mean {path.stem}?" in refusal([path, f"{path.stem}x", *records], capsys)
    assert f"did you mean {tmp_path / 'r'}?" in refusal([path, tmp_path / "rr", *records], capsys)
    assert "r has 1 latency record;" in refusal([path, "zzz", *records], capsys)
    assert "a side is empty" in refusal([path, "", *records], capsys)
    assert "it has null; choose another folder with --records" in refusal([path, "ort", *records], capsys)


def test_folders_without_records_are_refused(write: Callable[..., Path], tmp_path: Path, capsys: Printed) -> None:
    path = write("a", suite="accuracy", lengths={"distribution": "texts", "tokens": "text", "task": "stsb"}, scores={})
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a", tmp_path / "a" / "gpu-a"):
        assert "has no records of suite=latency" in refusal([folder, folder], capsys)
    assert "is a record of suite=accuracy" in refusal([path, path], capsys)
    assert "is not a folder" in refusal(["ort", "trt", "--records", tmp_path / "none"], capsys)
    error = refusal(["ort", "trt", "--records", tmp_path / "empty"], capsys)
    assert "it has no latency records" in error


def test_bad_record_files_are_refused(write: Callable[..., Path], tmp_path: Path, capsys: Printed) -> None:
    path = write("a")
    bad = tmp_path / "bad.json"
    bad.write_text(path.read_text().replace('"tiny"', '"tiny2"'))
    assert "its digest does not match its content" in refusal([path, bad], capsys)
    failed = write("a", precision="fp16", outcome="failed", reason="no memory", measurements=())
    assert "outcome failed; give a record with outcome ok" in refusal([path, failed], capsys)
    shutil.copy(bad, path.parent / "tiny-null-fp32-000000000000.json")
    assert main([str(tmp_path / "a"), str(tmp_path / "a")]) == 0
    assert "tiny-null-fp32-000000000000.json is not a valid record" in capsys.readouterr().out.replace("\n", " ")


def test_a_machine_selects_records(write: Callable[..., Path], tmp_path: Path, capsys: Printed) -> None:
    write("a", machine="gpu-a")
    write("a", machine="gpu-b")
    write("b", machine="gpu-b")
    assert main([str(tmp_path / "a"), str(tmp_path / "a"), "--json"]) == 0
    machines = [(pair["a"]["machine"], pair["b"]["machine"]) for pair in json.loads(capsys.readouterr().out)["pairs"]]
    assert machines == [("gpu-a", "gpu-a"), ("gpu-b", "gpu-b")]
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "--machine", "gpu-b"]) == 0
    assert "A: folder" in capsys.readouterr().out
    error = refusal([tmp_path / "a", tmp_path / "b", "--machine", "gpu-a"], capsys)
    assert "--machine gpu-a: no such machine; did you mean gpu-b? choices: gpu-b" in error


def test_options_of_new_runs_need_run(write: Callable[..., Path], capsys: Printed) -> None:
    path = write("a")
    for words, name in ((["batch=[1]"], "batch=[1]"), (["--processes=4"], "--processes"), (["--output=x"], "--output")):
        assert f"{name} is for new runs; add --run" in refusal([path, path, *words], capsys)


COMMIT = "0123456789" * 4


@pytest.fixture
def commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "find_commit", lambda revision: COMMIT if revision == "v1" else "")


@pytest.mark.usefixtures("commit")
def test_a_commit_selects_the_records_that_its_code_made(
    write: Callable[..., Path], tmp_path: Path, capsys: Printed
) -> None:
    write("r", maker={"version": "1", "commit": COMMIT, "dirty": False})
    write("r", precision="fp16", maker={"version": "1", "commit": COMMIT, "dirty": True})
    write("r", precision="bf16", maker={"version": "1", "commit": "f" * 40, "dirty": False})
    for name in ("v1", "commit:v1"):
        assert main([name, str(tmp_path / "r"), "--records", str(tmp_path / "r")]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "by commit 0123456789" in out
        assert "left out: 1 record: made by changed code" in out
        assert "1 pair, 2 rows" in out
    error = refusal(["commit:v2", "v1", "--records", tmp_path / "r"], capsys)
    assert "commit:v2: git has no commit of this name" in error


@pytest.mark.skipif(not sides.find_commit("HEAD"), reason="the project is not in a git repository")
def test_committed_records_are_read_from_the_repository(capsys: Printed) -> None:
    assert main(["commit:HEAD", str(REFERENCE), "--machine", "h100", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["a"]["source"].startswith("records in commit ")
    assert data["a"]["records"] == data["b"]["records"] > 20
    assert os.listdir(os.environ["TMPDIR"]) == [
        name for name in os.listdir(os.environ["TMPDIR"]) if "compare" not in name
    ]


@pytest.mark.skipif(not sides.find_commit("HEAD"), reason="the project is not in a git repository")
def test_the_machine_of_committed_records_need_not_be_in_the_results_folder(
    write: Callable[..., Path], tmp_path: Path, capsys: Printed
) -> None:
    write("r")
    words = ["commit:HEAD", str(REFERENCE), "--records", str(tmp_path / "r"), "--json"]
    assert main([*words, "--machine", "h100"]) == 0
    assert json.loads(capsys.readouterr().out)["a"]["source"].startswith("records in commit ")
    assert "--machine nowhere: no such machine; choices: cpu-" in refusal([*words, "--machine", "nowhere"], capsys)


def test_the_guide_shows_the_output_of_its_command(monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "guides" / "compare.md").read_text(encoding="utf-8")
    command, _, rest = page.partition("python -m suites.compare ")[2].partition("\n")
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out.rstrip() == rest.split("```")[1].strip()
