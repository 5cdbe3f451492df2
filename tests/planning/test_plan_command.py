"""`--plan` of the commands run and batch: it starts no worker and writes no file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Cli

from backends.base import Artifact, Device
from suites import batch
from suites.asking import chosen_machine
from suites.asking.request import Request, resolve
from suites.cli import local_settings
from suites.measuring.machine import Machine
from suites.planning import past_runs
from suites.planning.past_runs import PastRuns
from suites.planning.planned_cell import RUN, PlannedCell, plan_cell
from suites.running.engine_notes import engine_key, is_noted, note_engine
from suites.schema.run_schema import run_schema

QUICK = ("suite.seconds=0.02", "suite.warm_up_s=0.05", "batch=[2]", "sequence=[16]")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use no committed records, and fail if a worker starts."""
    monkeypatch.setattr(past_runs, "REFERENCE", tmp_path / "none")


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*arguments: object) -> None:
        raise AssertionError("a worker started")

    monkeypatch.setattr("suites.running.stages.call", call)
    monkeypatch.setattr("subprocess.Popen", call)


def statuses(out: str) -> list[str]:
    table = out.partition("\n\n")[0]
    return re.findall(r"^ *\d+ .*?  (run|recorded|refused|unsupported)\b", table, re.MULTILINE)


def test_a_plan_writes_nothing_and_starts_nothing(
    cli: Cli, tmp_path: Path, no_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before = sorted(tmp_path.rglob("*"))
    done = cli("--plan", "-m", "backend=null,torch_eager", "precision=fp32,int8", "weights=random")
    assert (done.returncode, done.stderr) == (0, "")
    assert statuses(done.stdout) == ["run", "run", "run", "unsupported"]
    assert "cells       4: 3 to run, 1 unsupported" in done.stdout
    assert "time        unknown: there are no records" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_recorded_cells_are_found_and_the_others_estimated_from_them(cli: Cli, tmp_path: Path) -> None:
    sweep = ("-m", "backend=null", *QUICK)
    assert cli(*sweep, "null.step_ms=1,2").returncode == 0
    done = cli("--plan", *sweep, "null.step_ms=1,2,3")
    assert statuses(done.stdout) == ["recorded", "recorded", "run"]
    assert "null.step_ms=3" in done.stdout
    assert "based on    records of this machine (1 cell); ~ marks" in done.stdout
    again = cli("--plan", *sweep, "null.step_ms=1", "rerun=true")
    assert statuses(again.stdout) == ["run"]
    more = cli("--plan", *sweep, "null.step_ms=1", "repeats=3")
    assert "processes   2 measuring processes" in more.stdout
    built = cli("--plan", *sweep, "null.step_ms=1", "until=build")
    assert statuses(built.stdout) == ["run"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("backend=nul",),
        ("bakend=null",),
        ("-m", "backend=null", "seed=range(1,1)"),
        ("-m", "backend=null,nul", "batch=[0]"),
        ("backend=null", "interpreter.main=/no/such/python"),
        ("backend=null", "results=/dev/null"),
        ("experiment=minilm_precisions",),
    ],
)
def test_bad_input_has_the_same_refusal_as_a_run(arguments: tuple[str, ...], cli: Cli) -> None:
    run, plan = cli(*arguments, folders=False), cli("--plan", *arguments, folders=False)
    assert run.stderr.startswith("refused: ")
    assert (plan.returncode, plan.stderr, plan.stdout) == (2, run.stderr, "")


def test_a_plan_excludes_other_modes(cli: Cli) -> None:
    done = cli("--plan", "--cfg", "job", "backend=null")
    assert (done.returncode, done.stderr) == (
        2,
        "refused: --plan and --cfg or --info exclude one another; leave one out\n",
    )
    assert "did you mean --plan?" in cli("--plann", "backend=null").stderr


def test_a_refused_cell_is_in_the_table_next_to_the_others(cli: Cli) -> None:
    done = cli("--plan", "-m", "backend=null", "sequence=[600],[16]")
    assert done.returncode == 2
    assert statuses(done.stdout) == ["refused", "run"]
    assert done.stderr.startswith("refused: sequence=600 is beyond the 512 positions")


def test_records_that_cannot_be_read_are_refused(cli: Cli, tmp_path: Path) -> None:
    assert cli("backend=null", *QUICK, "until=build").returncode == 0
    machine = resolve(run_schema()(backend="null", results=str(tmp_path / "results")), writes=False).machine
    folder = tmp_path / "results" / machine.slug / "records"
    folder.mkdir(parents=True)
    (folder / "latency").write_text("not a folder")
    done = cli("--plan", "backend=null", *QUICK)
    assert done.returncode == 2
    assert "records/latency cannot be read (Not a directory); correct its permissions" in done.stderr


def test_a_batch_is_planned_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], no_worker: None) -> None:
    file = tmp_path / "cells.txt"
    folders = [f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}"]
    file.write_text("# cells\n-m backend=null null.step_ms=1,2\nbackend=null precision=fp16\n")
    assert batch.main([str(file), "--plan", "--builders", "2", "repeats=2", *folders]) == 0
    out, error = capsys.readouterr()
    assert (statuses(out), error) == (["run"] * 3, "")
    assert "processes   6 measuring processes" in out
    assert max(map(len, out.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == [file]
    file.write_text("backend=null\nbackend=null batch=1\n")
    assert batch.main([str(file), "--plan", *folders]) == 2
    out, error = capsys.readouterr()
    assert error == "refused: line 2: batch must be a list, e.g. batch=[1,8]\n"
    assert statuses(out) == ["run"]
    file.write_text("# nothing\n")
    assert batch.main([str(file), "--plan"]) == 2
    assert "has no lines" in capsys.readouterr().err


@pytest.fixture
def engine_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """Return a request for a backend that builds engines, on a GPU that is not here."""
    device = Device("cuda", 0, "NVIDIA Test", "GPU-0", (9, 0), driver="580")
    description = {"gpu": "NVIDIA Test", "uuid": "GPU-0"}
    monkeypatch.setattr(chosen_machine, "gpus", lambda: [Machine(device, "nvidia-test", description)])
    local_settings.register()
    config = run_schema()(backend="trt", weights="random", results=str(tmp_path / "r"), cache=str(tmp_path / "c"))
    return resolve(replace(config, **_random()), writes=False)


def _random() -> dict[str, object]:
    from suites.schema.config import ModelConfig
    from suites.schema.enums import Weights

    architecture = {"model_type": "bert", "hidden_size": 64}
    return {"weights": Weights.random, "model": ModelConfig(name="tiny", architecture=architecture)}


def test_a_built_engine_is_noted_and_found(engine_request: Request, tmp_path: Path) -> None:
    request, past = engine_request, PastRuns(tmp_path / "r", "nvidia-test")

    def planned(request: Request) -> PlannedCell:
        return plan_cell(request, past)

    assert (planned(request).status, planned(request).engine_built) == (RUN, False)
    plan = request.cache / "engine" / "abc" / "model.plan"
    plan.parent.mkdir(parents=True)
    plan.write_bytes(b"engine")
    note_engine(request, Artifact(plan, ""))
    assert planned(request).engine_built
    # Another suite uses the same engine; another precision does not.
    assert engine_key(replace(request, suite="accuracy")) == engine_key(request)
    assert not planned(replace(request, spec=replace(request.spec, precision="fp16"))).engine_built
    plan.unlink()
    assert not is_noted(request.cache, engine_key(request))


def test_a_note_of_a_damaged_cache_is_ignored(engine_request: Request) -> None:
    key = engine_key(engine_request)
    path = engine_request.cache / "engine-notes" / f"{key}.json"
    path.parent.mkdir(parents=True)
    for text in ("", "[]", "{}", '{"path": 3}', '{"path": ".."}'):
        path.write_text(text)
        assert not is_noted(engine_request.cache, key)


def test_a_backend_without_engines_has_no_note(cli: Cli, tmp_path: Path) -> None:
    assert cli("backend=null", "until=build", *QUICK).returncode == 0
    assert not (tmp_path / "cache" / "engine-notes").exists()
