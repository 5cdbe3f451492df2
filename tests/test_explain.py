"""What goes wrong with a configuration is said in one line with what to do, and nothing in a file runs code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from suites import run

Refusal = Callable[..., str]


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """The line of a command line that is refused before any process starts."""

    def refused(*arguments: str) -> str:
        folders = (f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}")
        monkeypatch.setattr(sys, "argv", ["run", *arguments, *folders])
        assert run.main() == 2
        out, error = capsys.readouterr()
        assert error.count("\n") == 1, error
        assert error.startswith("refused: ")
        assert "Traceback" not in out + error
        return error

    return refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model.name=a=b"], """write 'model.name="a=b"'"""),
        (["task.name=x (1)"], """write 'task.name="x (1)"'"""),
        (["task.hub=[a"], "close its brackets"),
        (["model.name=o'neil"], "has characters that must be quoted"),
        (["a b=3"], "is not of the form key=value"),
        (["null.other=3"], "null.other"),
        (["null.other.x=3"], "null.other has no x; add it with a plus, as +null.other.x=VALUE"),
        (["+suite.foo=1"], "there is no key suite.foo; choices: suite.name"),
        (["+model.pth=x"], "did you mean model.path?"),
        (["trt.ranges=[1,2]"], "trt.ranges wants a list of lists, e.g. trt.ranges=[[1,8]]"),
        (["keep_fp32=3"], "keep_fp32 wants a list of names"),
        (["batch=[[1]]"], "batch=[[1]] must be a list of whole numbers"),
        (["sequence=[[16],[32]]"], "sequence=[[16], [32]] must be a list of whole numbers"),
        (["keep_fp32=[[a]]"], "must be a list of names"),
        (["trt.ranges=[[1,[2]]]"], "trt.ranges"),
        (["lengths.values=[[2]]", "lengths=stsb"], "must be a list of whole numbers"),
        (["+null.other.x=[1]"], "null.other"),
        (["batch=null"], "batch=null is no value"),
        (["suite=null"], "suite=null names no choice"),
        (["suite=5"], "suite=5 names no choice"),
        (["task=[a]"], "there is no task=a; choices: banking77"),
        (["model=null"], "model=null names no choice"),
        (["-m", "seed=range(0,3,0)"], "seed=range(0,3,0) cannot be composed: ValueError: range() arg 3"),
        (["-m", "seed=range(0,0)"], "the sweep has no cells: seed=range(0,0) gives no value"),
        (["interpreter=nope"], "there is no interpreter=nope; choices: main"),
        (["null.step_ms=nan"], "null.step_ms=nan must be a finite number of at least 0"),
        (["null.step_ms=inf"], "null.step_ms=inf must be a finite number"),
        (["task.path=" + "x" * 5000], "is not a file"),
    ],
)
def test_a_configuration_that_cannot_be_composed_is_refused(arguments: list[str], says: str, refusal: Refusal) -> None:
    assert says in refusal("backend=null", *arguments)


EVIL = {
    "callbacks": "hydra: {callbacks: {x: {_target_: os.system, command: 'touch MARK'}}}",
    "launcher": "hydra: {launcher: {_target_: os.system}}",
    "job_logging": "hydra: {job_logging: {handlers: {x: {'()': os.system, command: 'touch MARK'}}}}",
    "hydra_logging": "hydra: {hydra_logging: {formatters: {x: {'()': os.system, command: 'touch MARK'}}}}",
    "env_set": "hydra: {job: {env_set: {LD_PRELOAD: /tmp/evil.so}}}",
}


@pytest.mark.parametrize("sweep", [(), ("-m",)])
@pytest.mark.parametrize("part", EVIL)
def test_no_file_of_a_configuration_runs_code(
    part: str, sweep: tuple[str, ...], tmp_path: Path, refusal: Refusal
) -> None:
    (tmp_path / "more" / "experiment").mkdir(parents=True)
    text = EVIL[part].replace("MARK", str(tmp_path / "mark"))
    (tmp_path / "more" / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{text}\n")
    said = refusal(*sweep, "--config-dir", str(tmp_path / "more"), "backend=null", "experiment=evil")
    assert "by which Hydra would run code" in said
    assert not (tmp_path / "mark").exists()
