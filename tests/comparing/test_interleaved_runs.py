"""New runs of both sides: their commands, their order, and their records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_compare import processes, refusal

from suites.batch_runs.line_processes import LineProcesses
from suites.cli.batch_file import Line
from suites.compare import main
from suites.comparing.interleaved_runs import Plan, commands_of, order
from suites.comparing.revisions import find_commit, working_tree
from suites.records.record import Record, write_record
from suites.schema.refusals import Refused

MakeRecord = Callable[..., Record]
COMMAND = ("python", "-m", "suites.run", "backend=null", "device=cpu", "results=<results>", "repeats=3", "rerun=true")
Printed = pytest.CaptureFixture[str]


def test_processes_run_in_the_order_a_b_b_a() -> None:
    runs = list(order(Plan(([["a1"], ["a2"]], [["b1"]]), 3, Path("out"))))
    assert [line[0] for process, _, line in runs if process == 1] == ["a1", "b1", "a2"]
    assert [line[0] for process, _, line in runs if process == 2] == ["b1", "a1", "a2"]
    assert [line[0] for process, _, line in runs if process == 3] == ["a1", "b1", "a2"]
    assert all(line[0][0] == "ab"[side] for _, side, line in runs)


@pytest.mark.parametrize(
    ("command", "words", "lines"),
    [
        (COMMAND, [], [["backend=null", "device=cpu"]]),
        (COMMAND, ["device=cuda", "seed=1"], [["backend=null", "device=cuda", "seed=1"]]),
        (("inference-suites", "run", "backend=null"), [], [["backend=null"]]),
        (
            (*COMMAND[:3], "-m", "backend=ort,null", "precision=fp32,fp16", "batch=1"),
            [],
            [["backend=null", "precision=fp32", "batch=1"]],
        ),
        (
            (*COMMAND[:3], "-m", "backend=null", "profiles=a,b"),
            [],
            [["backend=null", "profiles=a"], ["backend=null", "profiles=b"]],
        ),
        ((*COMMAND[:3], "-m", "experiment=minilm_precisions"), [], [["-m", "experiment=minilm_precisions"]]),
        ((*COMMAND[:3], "model.path=<model.path>"), ["model.path=dir"], [["model.path=dir"]]),
    ],
)
def test_a_record_gives_its_command(
    command: tuple[str, ...], words: list[str], lines: list[list[str]], make_record: MakeRecord
) -> None:
    assert commands_of(make_record(command=command), words) == lines


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ((*COMMAND[:3], "model.path=<model.path>"), "its command names a folder that the record does not have"),
        (("python", "-m", "suites.search", "backend=ort"), "was not measured by `suites.run`"),
        ((), "no command"),
    ],
)
def test_a_record_whose_command_cannot_run_is_refused(
    command: tuple[str, ...], says: str, make_record: MakeRecord
) -> None:
    with pytest.raises(Refused, match=says):
        commands_of(make_record(command=command), [])


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, make_record: MakeRecord) -> list[tuple[str, list[str]]]:
    """Replace runs by writing a record with as many processes as `repeats`. Return the runs: side, and extra words."""
    seen: list[tuple[str, list[str]]] = []

    def run(batch: LineProcesses, line: Line, *extra: str) -> None:
        results = Path(batch.common[0].partition("=")[2])
        seen.append((results.name, [*line, *extra]))
        count, factor = int(extra[0].partition("=")[2]), 1.2 if results.name == "b" else 1.0
        noise = (1.0, 1.002, 0.999, 1.001, 0.998)[:count]
        write_record(results, make_record(measurements=processes(factor, noise), command=COMMAND))
        print("a message of a run")

    monkeypatch.setattr(LineProcesses, "run", run)
    return seen


def test_new_runs_are_compared(
    runs: list[tuple[str, list[str]]], make_record: MakeRecord, tmp_path: Path, capsys: Printed
) -> None:
    path = str(write_record(tmp_path / "r", make_record(measurements=processes(), command=COMMAND)))
    output = tmp_path / "new"
    assert main([path, path, "--run", "--processes", "4", "--output", str(output), "--json", "seed=1"]) == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)["pairs"][0]["rows"]
    assert {(row["a_processes"], row["b_processes"], row["verdict"]) for row in found} == {(4, 4, "slower")}
    assert "".join(side for side, _ in runs) == "abbaabba"
    assert runs[0][1] == ["backend=null", "device=cpu", "seed=1", "repeats=1"]
    assert runs[-1][1][-2:] == ["repeats=4", "rerun=false"]
    assert f"8 runs; new records: {output}" in printed.err
    assert "not empty" in refusal([path, path, "--run", "--output", output], capsys)


def test_bad_options_of_new_runs_are_refused(make_record: MakeRecord, tmp_path: Path, capsys: Printed) -> None:
    path = write_record(tmp_path / "r", make_record(measurements=processes(), command=COMMAND))
    run = [path, path, "--run"]
    assert "--processes=2 must be between 3 and 1000" in refusal([*run, "--processes", "2"], capsys)
    assert "--processes x must be a whole number" in refusal([*run, "--processes", "x"], capsys)
    assert "backend= and experiment= are for two commits" in refusal([*run, "backend=ort"], capsys)
    assert "did you mean precision" in refusal([*run, "presicion=fp16"], capsys)


def test_a_run_that_fails_is_refused(
    monkeypatch: pytest.MonkeyPatch, make_record: MakeRecord, tmp_path: Path, capsys: Printed
) -> None:
    path = write_record(tmp_path / "r", make_record(measurements=processes(), command=COMMAND))
    seen: list[Any] = []
    monkeypatch.setattr(
        LineProcesses, "run", lambda batch, line, *extra: seen.append(extra) or batch.failed.append("line")
    )
    assert main([str(path), str(path), "--run", "--output", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "refused: a run of A failed: line; its message is above"
    assert len(seen) == 1


needs_git = pytest.mark.skipif(not find_commit("HEAD"), reason="the project is not in a git repository")


@needs_git
def test_a_working_tree_has_the_code_of_the_commit_and_is_removed() -> None:
    with working_tree(find_commit("HEAD")) as tree:
        assert (tree / "suites" / "worker.py").is_file()
        assert (tree / ".git").is_file()
    assert not tree.exists()
    with pytest.raises(Refused, match="git cannot create a working tree of 000000000000"), working_tree("0" * 40):
        pass


@needs_git
@pytest.mark.slow
def test_two_commits_are_measured_with_their_own_code(tmp_path: Path, capsys: Printed) -> None:
    words = ["backend=null", "device=cpu", "null.step_ms=1", "batch=[1]", "sequence=[16]", "suite.seconds=0.05"]
    options = ["--run", "--processes", "3", "--output", str(tmp_path), "--allow-other-conditions", "--json"]
    assert main(["commit:HEAD", "HEAD", *options, *words, "suite.warm_up_s=0.05"]) in (0, 1)
    data = json.loads(capsys.readouterr().out)
    assert data["a"]["commit"] == data["b"]["commit"] == find_commit("HEAD")
    records = [json.loads(path.read_text()) for path in tmp_path.glob("[ab]/*/records/latency/*.json")]
    assert [record["maker"]["commit"] for record in records] == [find_commit("HEAD")] * 2
    assert {row["a_processes"] for pair in data["pairs"] for row in pair["rows"]} == {3}
