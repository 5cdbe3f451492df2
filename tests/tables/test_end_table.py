"""The table at the end of a run fits into 80 columns, and shows the rows that matter."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import ROOT, Cli
from rich.cells import cell_len
from timed_records import timed, unsteady, with_problem

from suites.cli import output
from suites.latency.ranking import rankings
from suites.records.record import Record, write_record
from suites.records.results_folder import MachineFolder
from suites.suite import part, suite_names
from suites.tables.end_table import OTHERS_SHOWN, Column, EndTable, Group, Line, rendered
from suites.tables.terminal import Style, end_text
from suites.tables.touched import MOST_SHOWN, tables_at_end, touched

GOLDEN = ROOT / "tests" / "golden" / "end_table.txt"
REFERENCE = ROOT / "results" / "reference"
MakeRecord = Callable[..., Record]
QUICK = ("backend=null", "suite.seconds=0.05", "suite.warm_up_s=0.05", "suite.min_samples=3", "batch=[2]",
         "sequence=[16]")  # fmt: skip


def widest(text: str) -> int:
    return max(cell_len(line) for line in text.splitlines())


def of_run(own: Sequence[Record], others: Sequence[Record], results: Path, baseline: str = "torch_eager/fp32") -> str:
    """Return the table of a run that measured `own` in a folder that also has `others`."""
    for record in (*own, *others):
        write_record(results, record)
    return end_text("latency", own, MachineFolder(results, "gpu-a"), Style(baseline))


def lines_of(text: str) -> list[str]:
    """Return the lines of rows."""
    return [line for line in text.splitlines() if re.match(r"[* ]  \w+ (fp|int8)", line)]


def test_the_table_equals_the_golden_file(make_record: MakeRecord, tmp_path: Path) -> None:
    long = "a-model-with-a-name-that-is-longer-than-a-line-of-a-terminal/" + "x" * 60
    own = [
        timed(make_record, (1.00, 1.01, 1.02), backend="ort", precision="fp16"),
        unsteady(timed(make_record, (1.5, 1.6, 1.7), backend="torch_compile", precision="fp16")),
        with_problem(timed(make_record, (0.5, 0.5, 0.5), backend="trt", precision="int8"), "3 outputs are NaN or Inf"),
        make_record(backend="other", precision="int8", measurements=(), outcome="unsupported",
                    reason=f"this backend has no INT8; use backend=ort for INT8, or {long}"),
        timed(make_record, (7.0,), backend="a_backend_with_a_very_long_name_from_elsewhere", model=long),
    ]  # fmt: skip
    others = [
        timed(make_record, (4.0, 4.1, 4.2), backend="torch_eager"),
        *(timed(make_record, (2 + 0.1 * n,) * 3, backend="trt", options={"profiles": "dynamic", "min": [1, 16],
                "opt": [8, 64], "max": [8, 64 + n], "constraints": "prefer"}) for n in range(OTHERS_SHOWN + 2)),
    ]  # fmt: skip
    text = of_run(own, others, tmp_path)
    assert text == GOLDEN.read_text(encoding="utf-8").rstrip("\n")
    assert widest(text) <= 80


def test_other_cells_name_their_model_if_the_run_has_several(make_record: MakeRecord, tmp_path: Path) -> None:
    failed = [
        make_record(backend="ort", model=model, measurements=(), outcome="unsupported", reason="no head: " + "x" * 40)
        for model in ("first", "a-second-model")
    ]
    one = of_run(failed[:1], [], tmp_path / "one")
    assert "model" not in one
    assert one.count("*  ort fp32") == 1
    two = of_run(failed, [], tmp_path / "two")
    (header,) = (line for line in two.splitlines() if "backend" in line)
    assert header.split()[:2] == ["model", "backend"]
    assert sorted(line.split()[1] for line in two.splitlines() if line.startswith("*  ")) == ["a-second-model", "first"]
    long = make_record(backend="ort", model="m" * 90, measurements=(), outcome="failed", reason="x")
    assert widest(of_run([*failed, long], [], tmp_path / "three")) <= 80


def test_long_headings_are_wrapped(make_record: MakeRecord, tmp_path: Path) -> None:
    lengths = {"distribution": "a-distribution-with-a-long-name-of-its-own-file", "tokens": "texts"}
    options = {"output": "embedding", "pooling": ["cls", "mean", "max", "weightedmean"], "normalize": True}
    own = [
        timed(make_record, (ms,) * 3, backend="ort", precision=name, lengths=lengths, options=options)
        for ms, name in ((1, "fp32"), (2, "fp16"))
    ]
    text = of_run(own, [], tmp_path)
    assert widest(text) <= 80
    assert "..." not in text
    (ranking,) = rankings(own, {})
    assert str(ranking.workload).replace("tiny, ", "tiny: ", 1) in " ".join(text.split())


def test_rows_are_sorted_and_those_of_the_run_are_marked(make_record: MakeRecord, tmp_path: Path) -> None:
    own = [timed(make_record, (ms,) * 3, backend="ort", precision=name) for ms, name in ((3, "fp16"), (1, "fp32"))]
    text = of_run(own, [timed(make_record, (2, 2, 2), backend="torch_eager")], tmp_path)
    assert [line.split()[:3] for line in lines_of(text)] == [
        ["*", "ort", "fp32"],
        ["torch_eager", "fp32", "2.000"],
        ["*", "ort", "fp16"],
    ]
    assert "2.00x  fastest" in lines_of(text)[0]


def test_the_baseline_can_be_named(make_record: MakeRecord, tmp_path: Path) -> None:
    own = [timed(make_record, (ms,) * 3, backend="ort", precision=name) for ms, name in ((1, "fp16"), (3, "fp32"))]
    named = of_run(own, [], tmp_path, "ort/fp16")
    assert "1.00x  fastest; baseline" in named
    assert "0.33x" in named
    missing = of_run(own, [], tmp_path)
    assert "no ratio: torch_eager fp32 has no valid row here" in missing
    assert not re.search(r"\d\.\d\dx ", missing)


def test_the_score_of_a_task_is_next_to_the_time(make_record: MakeRecord, tmp_path: Path) -> None:
    own = [timed(make_record, (ms,) * 3, backend="ort", precision=name) for ms, name in ((1, "int8"), (3, "fp32"))]
    assert "agreement" not in of_run(own, [], tmp_path)
    scores = {"metric": "rank agreement", "value": 0.9876, "difference": -0.0124, "nonfinite": 0, "tolerance": 0.01,
              "reference_value": 1.0, "gates": False}  # fmt: skip
    judged = make_record(suite="accuracy", backend="ort", precision="int8", measurements=(),
                         lengths={"distribution": "full", "tokens": "auto", "task": "sentences"},
                         scores=scores)  # fmt: skip
    write_record(tmp_path, judged)
    text = of_run(own, [], tmp_path, "ort/fp32")
    assert "sentences: rank agreement with PyTorch in FP32" in text
    (header,) = (line for line in text.splitlines() if "p50 ms" in line)
    shown = [line[header.index("sentences") :][: len("sentences")].strip() for line in lines_of(text)]
    assert shown == ["0.9876", ""]


def test_all_rows_of_the_run_are_shown_and_few_others(make_record: MakeRecord, tmp_path: Path) -> None:
    def several(backend: str) -> list[Record]:
        return [timed(make_record, (2 + 0.1 * n,) * 3, backend=backend, options={"seed": n}) for n in range(12)]

    text = of_run(several("ort"), [*several("trt"), timed(make_record, (9, 9, 9), backend="torch_eager")], tmp_path)
    names = [line[3:].split()[0] for line in lines_of(text)]
    assert [names.count(name) for name in ("ort", "trt", "torch_eager")] == [12, OTHERS_SHOWN, 1]
    assert f"and {12 - OTHERS_SHOWN} more rows" in text
    short = end_text(
        "latency", several("ort"), MachineFolder(tmp_path, "gpu-a"), Style("torch_eager/fp32", whole=False)
    )
    assert len(lines_of(short)) == OTHERS_SHOWN + 2


def test_a_batch_of_few_cells_ends_with_all_its_rows(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        for n in range(MOST_SHOWN):
            record = timed(make_record, (1 + 0.1 * n,) * 3, backend="ort", options={"seed": n})
            write_record(tmp_path, record)
            touched(tmp_path, "gpu-a", record.cell, "trt/fp16")
        return 0

    assert tables_at_end(work) == 0
    assert len(lines_of(capsys.readouterr().out)) == MOST_SHOWN


def test_a_batch_ends_with_the_fastest_rows(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [timed(make_record, (1 + 0.1 * n,) * 3, backend="ort", options={"seed": n}) for n in range(12)]
    records.append(timed(make_record, (9, 9, 9), backend="trt", precision="fp16"))

    def work() -> int:
        for record in records:
            write_record(tmp_path, record)
            touched(tmp_path, "gpu-a", record.cell, "trt/fp16")
        return 0

    assert tables_at_end(work) == 0
    text = capsys.readouterr().out
    assert len(lines_of(text)) == OTHERS_SHOWN + 2  # with the fastest row and the baseline
    assert "9.00x  fastest" in text
    assert "1.00x  baseline" in text
    assert text.endswith(f"read the files in\n  {tmp_path / 'gpu-a' / 'tables'}\n")


def test_the_reason_of_a_missing_winner_is_named(make_record: MakeRecord, tmp_path: Path) -> None:
    own = [unsteady(timed(make_record, (ms,) * 3, backend=name)) for ms, name in ((1, "ort"), (2, "torch_eager"))]
    text = of_run(own, [], tmp_path)
    assert "no winner: every valid row was disturbed or not steady" in text
    assert "[1] not steady after warm-up" in text
    assert "fastest" not in text
    assert "no winner: only one valid row" in of_run([timed(make_record, (1,))], [], tmp_path / "one")


OTHER_SUITES = sorted(
    path for name in ("accuracy", "layers", "switching") for path in REFERENCE.glob(f"*/records/{name}")
)


@pytest.mark.parametrize("records", OTHER_SUITES, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_tables_of_other_suites_fit_too(records: Path) -> None:
    folder, suite = MachineFolder(REFERENCE, records.parts[-3]), records.name
    of_suite = folder.records(suite)
    text = end_text(suite, of_suite[:20], folder, Style("torch_eager/fp32"))
    assert folder.bad == {}
    assert widest(text) <= 80
    assert text.count("\n* ") >= len(of_suite[:20])


def test_every_suite_has_an_end_table() -> None:
    assert all(part(name, "tables").END_TABLES for name in suite_names())


def test_rows_of_several_passes_are_shown() -> None:
    folder = MachineFolder(REFERENCE, "nvidia-h200-driver-580.159.04")
    own = [record for record in folder.records("latency") if "passes" in record.cell.lengths]
    text = end_text("latency", own, folder, Style("torch_eager/fp32"))
    assert folder.bad == {}
    assert text.count("\n* ") == sum(len(record.cell.shapes) for record in own)
    assert widest(text) <= 80


def test_a_record_without_a_table_is_left_out_and_named(make_record: MakeRecord, tmp_path: Path) -> None:
    good = timed(make_record, (1, 1, 1), backend="ort")
    bad = timed(make_record, (1, 1, 1), backend="trt", options={"profiles": "ranges"})
    folder = MachineFolder(tmp_path, "gpu-a")
    write_record(tmp_path, good)
    path = write_record(tmp_path, bad)
    assert len(lines_of(end_text("latency", [good], folder, Style("torch_eager/fp32")))) == 1
    assert path in folder.bad


def test_wide_characters_count_as_two_cells() -> None:
    columns = [Column(""), Column("name", shrinks=1), Column("notes", shrinks=2)]
    lines = [Line(["*", "模型" * 30, "笔记" * 30]), Line(["", "b\x1b[2J", "invalid"], "invalid: " + "x" * 400)]
    text = rendered(EndTable(["標題" * 50], columns, [Group("", lines)], ["word " * 40]))
    assert widest(text) <= 80
    assert "\x1b" not in text


def test_colours_are_used_in_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    table = EndTable(["title"], [Column(""), Column("name")], [Group("", [Line(["*", "a"], style="green")])])
    assert "\x1b[" in rendered(table, styled=True)
    assert "\x1b[" not in rendered(table)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.shows_colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.shows_colours()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert not output.shows_colours()


def test_colours_pass_through_tolerant_output(capsys: pytest.CaptureFixture[str]) -> None:
    with output.TolerantOutput(), output.TolerantOutput():
        output.print_styled("\x1b[1mbold\x1b[0m")
        print("\x1b[1mescaped")
    assert capsys.readouterr().out == "\x1b[1mbold\x1b[0m\n\\x1b[1mescaped\n"


def test_a_run_ends_with_the_short_table_and_wide_prints_every_column(fast_cli: Cli) -> None:
    short = fast_cli(*QUICK, NO_COLOR="1", COLUMNS="40")
    assert short.returncode == 0, short.stderr
    table, details = short.stdout.split("Every column and the full reasons: add --wide")
    assert widest(table) <= 80
    assert "*  null fp32" in table
    assert details.rstrip().endswith("tables")
    wide = fast_cli(*QUICK, "--wide")
    assert wide.returncode == 0, wide.stderr
    assert "| p50 ms [95% CI]" in wide.stdout
    assert "The columns are explained in" in wide.stdout
    swept = fast_cli("-m", "--wide", *QUICK[:-1], "sequence=[16],[32]")
    all_rows, parts = swept.stdout.split("#### Parts of a request")
    assert [text.count("| null ") for text in (all_rows, parts)] == [2, 2]


@pytest.mark.parametrize(
    ("baseline", "says"),
    [
        ("ortt/fp16", "there is no backend ortt; did you mean ort?"),
        ("ort/fp61", "there is no precision fp61; did you mean fp16?"),
        ("/fp16", "there is no backend (nothing); write BACKEND/PRECISION, such as ort/fp16"),
        ("ort/", "there is no precision (nothing); choices: fp32"),
    ],
)
def test_a_baseline_that_does_not_exist_is_refused(baseline: str, says: str, fast_cli: Cli) -> None:
    done = fast_cli(*QUICK, f"baseline={baseline}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"refused: baseline={baseline}: {says}")
    assert done.stderr.count("\n") == 1
