"""`suites.choose` names winner and runner-up, says when no row can be named, and refuses bad input in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from rich.cells import cell_len
from timed_records import timed, unsteady, with_problem

from suites import choose
from suites.records.record import Record, write_record
from suites.records.results_folder import machine_folders

GOLDEN = ROOT / "tests" / "golden" / "choose.txt"
REFERENCE = ROOT / "results" / "reference"
MakeRecord = Callable[..., Record]
Capture = pytest.CaptureFixture[str]
COMMAND = ("python", "-m", "suites.run", "-m", "backend=torch_eager,ort,trt", "precision=fp32,fp16,int8", "batch=[2]",
           "sequence=[16]", "results=<results>")  # fmt: skip


def results(folder: Path, records: Sequence[Record]) -> Path:
    for record in records:
        write_record(folder, record)
    return folder


def compared(make_record: MakeRecord, machine: str = "gpu-a", **changes: object) -> list[Record]:
    """Return rows that are clearly different: ort fp16 in 1 ms, trt fp16 in 2 ms, torch_eager fp32 in 4 ms."""
    rows = [("ort", "fp16", 1.0), ("trt", "fp16", 2.0), ("torch_eager", "fp32", 4.0)]
    return [
        timed(make_record, (ms, ms * 1.01, ms * 1.02), backend=backend, precision=precision, machine=machine,
              command=COMMAND, **changes)
        for backend, precision, ms in rows
    ]  # fmt: skip


def chosen(capsys: Capture, *arguments: str, status: int = 0) -> list[dict[str, object]]:
    """Return the choices of a command in JSON."""
    assert choose.main([*arguments, "--json"]) == status
    choices = json.loads(capsys.readouterr().out)
    assert isinstance(choices, list)
    return choices


def row_of(choice: dict[str, object], name: str = "winner") -> str:
    row = choice[name]
    assert isinstance(row, dict)
    return f"{row['backend']} {row['precision']}"


def test_the_text_equals_the_golden_file(make_record: MakeRecord, tmp_path: Path, capsys: Capture) -> None:
    tied = [
        timed(make_record, (ms, ms * 1.2, ms * 1.1), backend=backend, model="tied", options={"samples": number})
        for number, (backend, ms) in enumerate(
            [("ort", 1.0), ("ort", 1.001), ("a_backend_with_a_very_long_name_from_elsewhere", 1.01), ("trt", 3.0)]
        )
    ]
    alone = timed(make_record, (1, 1, 1), model="only one row")
    disturbed = [unsteady(record) for record in compared(make_record, model="x" * 100)]
    results(tmp_path, [*compared(make_record), *tied, alone, *disturbed, *compared(make_record, machine="gpu-b")])
    assert choose.main(["--records", str(tmp_path)]) == 0
    assert choose.main(["--records", str(tmp_path), "--machine", "gpu-b", "--p50-ms", "0.5", "--p99-ms", "2"]) == 1
    text = capsys.readouterr().out
    assert text == GOLDEN.read_text(encoding="utf-8")
    assert max(map(cell_len, text.splitlines())) <= 80


def test_the_winner_of_committed_records_is_reproduced_by_its_command(capsys: Capture) -> None:
    assert choose.main(["--records", str(REFERENCE), "--machine", "h100", "--shape", "1x128"]) == 0
    text = capsys.readouterr().out
    assert "NVIDIA H200" not in text
    assert "8x128:" not in text
    choices = chosen(capsys, "--records", str(REFERENCE), "--machine", "h100", "--shape", "1x128")
    folder = next(folder for folder in machine_folders(REFERENCE) if "h100" in folder.name)
    winners = [winner for choice in choices if (winner := choice["winner"]) is not None]
    assert len(winners) > 4
    for winner in winners:
        assert isinstance(winner, dict)
        record = folder.record("latency", winner["cell"])
        assert record is not None
        assert winner["command"][:3] == ["python3", "-m", "suites.run"]
        own = {f"backend={record.cell.backend}", f"precision={record.cell.precision}"}
        assert own <= set(winner["command"]) <= {*record.command, *own}


def test_winner_runner_up_and_speedups(make_record: MakeRecord, tmp_path: Path, capsys: Capture) -> None:
    results(tmp_path, compared(make_record))
    (choice,) = chosen(capsys, "--records", str(tmp_path))
    assert (choice["result"], row_of(choice), row_of(choice, "runner_up")) == ("winner", "ort fp16", "trt fp16")
    assert choice["speedup_over_baseline"] == pytest.approx(4.0)
    assert choice["speedup_over_runner_up"] == pytest.approx(2.0)
    assert isinstance(choice["confidence"], float)
    assert 0.98 < choice["confidence"] <= 1
    (choice,) = chosen(capsys, "--records", str(tmp_path), "--baseline", "trt/fp16")
    assert choice["speedup_over_baseline"] == pytest.approx(2.0)
    (choice,) = chosen(capsys, "--records", str(tmp_path), "--baseline", "trt/int8")
    assert choice["speedup_over_baseline"] is None


def test_rows_within_the_spread_are_a_tie(make_record: MakeRecord, tmp_path: Path, capsys: Capture) -> None:
    records = [timed(make_record, (1.0, 1.2, 1.1), backend="ort"), timed(make_record, (1.01, 1.2, 1.1), backend="trt")]
    results(tmp_path, records)
    (choice,) = chosen(capsys, "--records", str(tmp_path))
    assert choice["result"] == "tie"
    assert isinstance(choice["confidence"], float)
    assert 0.5 < choice["confidence"] < 0.98
    assert choose.main(["--records", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "  tie         ort fp32, p50" in text
    assert "a tie, because less" in text


def test_options_of_the_winner_that_tie_are_counted(make_record: MakeRecord, tmp_path: Path, capsys: Capture) -> None:
    own = [timed(make_record, (1.0, 1.1, 1.2), backend="ort", options={"samples": n}) for n in range(3)]
    results(tmp_path, [*own, timed(make_record, (9, 9.1, 9.2), backend="trt")])
    (choice,) = chosen(capsys, "--records", str(tmp_path))
    assert (choice["result"], row_of(choice, "runner_up"), choice["tied_variants"]) == ("winner", "trt fp32", 2)


def test_limits_exclude_rows(make_record: MakeRecord, tmp_path: Path, capsys: Capture) -> None:
    fast, middle, slow = compared(make_record)
    fast = replace(fast, checks=tuple(replace(check, cosine=0.992) for check in fast.checks))
    results(tmp_path, [fast, middle, slow])
    (choice,) = chosen(capsys, "--records", str(tmp_path), "--cosine", "0.995")
    assert (row_of(choice), row_of(choice, "runner_up")) == ("trt fp16", "torch_eager fp32")
    (choice,) = chosen(capsys, "--records", str(tmp_path), "--p50-ms", "3", "--cosine", "0.995")
    assert (row_of(choice), choice["runner_up"], choice["confidence"]) == ("trt fp16", None, None)
    assert choose.main(["--records", str(tmp_path), "--p50-ms", "3", "--cosine", "0.995"]) == 0
    assert "no other row meets the limits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limits", "nearest"),
    [
        (("--p50-ms", "0.9"), "ort fp16: p50 1.010 ms is 0.110 ms above --p50-ms 0.9"),
        (("--cosine", "0.99999"), "ort fp16: cosine 0.99998 is 0.00001 below --cosine 0.99999"),
        (("--memory-mb", "5"), "ort fp16: memory is not known for --memory-mb 5: no reading of the memory"),
        (
            ("--task-loss", "0.01"),
            "ort fp16: task loss is not known for --task-loss 0.01: no task with labels",
        ),
        (("--p99-ms", "9"), "ort fp16: p99 is not known for --p99-ms 9: it needs 200 samples, and there are 90;"),
    ],
)
def test_limits_that_no_row_meets_name_the_nearest_row(
    limits: tuple[str, str], nearest: str, make_record: MakeRecord, tmp_path: Path, capsys: Capture
) -> None:
    results(tmp_path, compared(make_record))
    (choice,) = chosen(capsys, "--records", str(tmp_path), *limits, status=1)
    assert choice["reason"] == "no row meets the limits"
    assert str(choice["nearest"]).startswith(nearest)


def test_p99_and_memory_and_task_loss_are_compared_when_they_are_known(
    make_record: MakeRecord, tmp_path: Path, capsys: Capture
) -> None:
    records = [timed(make_record, (ms,) * 3, 100, backend=name) for ms, name in ((1, "ort"), (2, "trt"))]
    small = tuple(replace(m, telemetry={"memory_bytes": 3_000_000}) for m in records[1].measurements)
    large = tuple(replace(m, telemetry={"memory_bytes": 9_000_000}) for m in records[0].measurements)
    scores = {"metric": "spearman", "value": 0.8, "difference": -0.004, "nonfinite": 0, "tolerance": 0.01}
    lengths = {"distribution": "texts", "tokens": "text", "task": "stsb"}
    scored = [
        make_record(suite="accuracy", backend=name, lengths=lengths, measurements=(),
                    scores={**scores, "difference": -lost})
        for name, lost in (("ort", 0.004), ("trt", 0.001))
    ]  # fmt: skip
    results(tmp_path, [replace(records[0], measurements=large), replace(records[1], measurements=small), *scored])
    folder = ("--records", str(tmp_path))
    assert row_of(chosen(capsys, *folder, "--p99-ms", "1.5")[0]) == "ort fp32"
    assert row_of(chosen(capsys, *folder, "--memory-mb", "4")[0]) == "trt fp32"
    assert row_of(chosen(capsys, *folder, "--task-loss", "0.002")[0]) == "trt fp32"
    assert row_of(chosen(capsys, *folder, "--task-loss", "0.005")[0]) == "ort fp32"


def test_no_winner_is_named_without_evidence(make_record: MakeRecord, tmp_path: Path, capsys: Capture) -> None:
    fast, middle, slow = compared(make_record)
    results(tmp_path / "faster", [unsteady(fast), middle, slow])
    (choice,) = chosen(capsys, "--records", str(tmp_path / "faster"), status=1)
    assert choice["reason"] == (
        "a row that cannot win may be faster; the lowest time is that of ort fp16 (not steady after warm-up)"
    )
    wrong = [with_problem(record, "3 outputs are NaN or Inf") for record in (fast, middle)]
    results(tmp_path / "wrong", wrong)
    (choice,) = chosen(capsys, "--records", str(tmp_path / "wrong"), status=1)
    assert str(choice["reason"]).startswith("no row is valid; ort fp16: 3 outputs are NaN or Inf")
    results(tmp_path / "one", [wrong[0], middle])
    (choice,) = chosen(capsys, "--records", str(tmp_path / "one"), status=1)
    assert str(choice["reason"]).startswith("only one valid row")


def refused(capsys: Capture, *arguments: str) -> str:
    assert choose.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("refused: ")
    assert error.count("\n") == 1
    return error.removeprefix("refused: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--p50-ms", "fast"), "--p50-ms fast must be a number"),
        (("--p50-ms", "-1"), "--p50-ms=-1.0 must be at least 0"),
        (("--p99-ms", "nan"), "--p99-ms=nan must be a finite number of at least 0"),
        (("--memory-mb", "inf"), "--memory-mb=inf must be a finite number of at least 0"),
        (("--task-loss", "NaN"), "--task-loss=nan must be a finite number of at least 0"),
        (("--cosine", "1.5"), "--cosine=1.5 must be between -1 and 1"),
        (("--cosine", "nan"), "--cosine=nan must be between -1 and 1"),
        (("--machine", "gpu-c"), "no record has --machine gpu-c; did you mean gpu-a"),
        (("--model", "tinny"), "no record has --model tinny; did you mean tiny? measured: tiny"),
        (("--shape", "8x128"), "no record has --shape 8x128; the nearest is 2x16; measured: 2x16"),
        (("--shape", "8by128"), "--shape 8by128 is not BATCHxSEQUENCE, such as 8x128"),
        (("--shape", "0x128"), "--shape 0x128 is not BATCHxSEQUENCE"),
        (("--baseline", "orrt/fp16"), "--baseline orrt/fp16: there is no backend orrt; did you mean ort?"),
        (("--baseline", "ort/f16"), "--baseline ort/f16: there is no precision f16; did you mean fp16?"),
        (("--p50", "1", "--memry-mb", "3"), "there is no option --memry-mb; did you mean --memory-mb?"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: tuple[str, ...], says: str, make_record: MakeRecord, tmp_path: Path, capsys: Capture
) -> None:
    results(tmp_path, compared(make_record))
    assert says in refused(capsys, "--records", str(tmp_path), *arguments)


def test_a_folder_without_records_is_refused(
    make_record: MakeRecord, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nowhere has no records" in refused(capsys, "--records", str(tmp_path / "nowhere"))
    monkeypatch.chdir(tmp_path)
    assert "add --records results/reference" in refused(capsys)
    results(tmp_path / "other", [make_record(suite="layers", outcome="failed")])
    assert "has no records of suite=latency" in refused(capsys, "--records", str(tmp_path / "other"))
    failed = make_record(outcome="failed", reason="no memory", measurements=())
    results(tmp_path / "failed", [failed])
    assert "has no record of suite=latency with a time" in refused(capsys, "--records", str(tmp_path / "failed"))


def test_records_without_a_common_shape_are_refused(make_record: MakeRecord, tmp_path: Path, capsys: Capture) -> None:
    small, large = timed(make_record, (1, 1), backend="ort"), timed(make_record, (1, 1), backend="trt")
    moved = tuple(replace(m, sequence=64) for m in large.measurements)
    large = replace(large, cell=replace(large.cell, shapes=((2, 64),)), measurements=moved, checks=())
    results(tmp_path, [small, large])
    says = refused(capsys, "--records", str(tmp_path))
    assert "no two records have a shape in common" in says
    assert "ort fp32 at 2x16, trt fp32 at 2x64; measure them with the same batch= and sequence=" in says
    results(tmp_path / "one", [small])
    assert "only one record was found (ort fp32 at 2x16)" in refused(capsys, "--records", str(tmp_path / "one"))


def test_a_file_that_is_not_a_record_is_named(make_record: MakeRecord, tmp_path: Path, capsys: Capture) -> None:
    stray = write_record(tmp_path, compared(make_record)[0]).with_name("stray.json")
    stray.write_text("{")
    results(tmp_path, compared(make_record))
    assert choose.main(["--records", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "winner      ort fp16" in printed.out
    assert f"skipped: {stray}: " in printed.err
