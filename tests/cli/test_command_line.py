"""Arguments before Hydra reads them; errors as one line and an exit status."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tomllib
from conftest import ROOT

from suites.cli import dependencies
from suites.cli.command_line import FLAGS, overrides, run_guarded
from suites.schema.refusals import Refused


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["backend=null"], ['backend="null"']),
        (["backend=ort,null,null"], ['backend=ort,"null","null"']),
        (["model=nullish", "backend=nullish"], ["model=nullish", "backend=nullish"]),
        (["results=x", "-m", "backend=ort"], ["--multirun", 'results="x"', "backend=ort"]),
        (["--cfg", "job", "batch=[1]"], ["--cfg=job", "batch=[1]"]),
        (["backend=ort", "-c", "job", "batch=[1]"], ["--cfg=job", "backend=ort", "batch=[1]"]),
        (["batch=[1]", "-i", "backend=ort"], ["--info=all", "batch=[1]", "backend=ort"]),
        (["batch=[1]", "--cfg=job", "--resolve"], ["--cfg=job", "--resolve", "batch=[1]"]),
    ],
)
def test_arguments_are_passed_to_hydra(typed: list[str], read: list[str]) -> None:
    assert overrides(typed, FLAGS) == read


@pytest.mark.parametrize(
    ("typed", "says"),
    [("--multrun", "no flag --multrun; did you mean --multirun?"), ("--bulders", "there is no flag --bulders")],
)
def test_an_unknown_flag_is_refused(typed: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        overrides([typed], FLAGS)


def raising(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (Refused("no such thing"), 2, "refused: no such thing\n"),
        (PermissionError(13, "Permission denied", "/a/b"), 2, "refused: /a/b: Permission denied; check that"),
        (KeyboardInterrupt(), 130, "interrupted: measured cells are kept; run the same command to continue\n"),
    ],
)
def test_every_exception_gives_one_line_and_an_exit_status(
    error: BaseException, status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_guarded(raising(error)) == status
    assert capsys.readouterr().err.startswith(says)


def test_a_bug_in_the_suite_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_guarded(raising(ZeroDivisionError()))


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["--experimental-rerun", "x.pickle"], "there is no flag --experimental-rerun"),
        (["--experimental-rer=x.pickle"], "there is no flag"),
        (["--cfg"], "--cfg needs one of job, hydra, all"),
        (["--cfg", "backend=ort"], "--cfg needs one of job, hydra, all"),
        (["--config-dir"], "--config-dir needs a value"),
        (["--resolve", "backend=ort"], "--resolve works with --cfg"),
        (["-m", "--info"], "exclude one another"),
        (["--multirun=yes"], "takes no value"),
        (["hydra/launcher=joblib"], "hydra/launcher cannot be set here"),
        (["+hydra.callbacks.x._target_=os.system"], "cannot be set here"),
        (["hydra.searchpath=[pkg://x]"], "cannot be set here"),
        (["+hydra.job.env_set.LD_PRELOAD=x"], "cannot be set here"),
        (["~hydra.job_logging"], "cannot be set here"),
        (["+task@hydra.callbacks.x=stsb"], "cannot be set here"),
        (["+model.architecture={_target_: os.system}"], "_target_ cannot be set here"),
        (["++model.architecture._target_=os.system"], "_target_ cannot be set here"),
    ],
)
def test_arguments_that_could_run_code_or_are_incomplete_are_refused(typed: list[str], says: str) -> None:
    with pytest.raises(Refused, match=re.escape(says)):
        overrides(typed, FLAGS)


def test_a_folder_that_replaces_the_main_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("hydra: {searchpath: ['pkg://x']}")
    with pytest.raises(Refused, match=r"has a run\.yaml"):
        overrides(["--config-dir", str(tmp_path)], FLAGS)


def test_a_refusal_with_a_long_reason_is_still_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(raising(Refused("a\nb " * 100_000))) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) < 2000


def test_a_missing_library_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ModuleNotFoundError("No module named 'sklearn.metrics'", name="sklearn.metrics")
    assert run_guarded(raising(error)) == 2
    line = f"refused: scikit-learn is not installed in {sys.executable}; "
    assert capsys.readouterr().err == f"{line}activate .venv (source .venv/bin/activate) or run make demo\n"
    monkeypatch.setattr(dependencies, "ROOT", tmp_path)  # an installed copy has no Makefile
    assert run_guarded(raising(error)) == 2
    assert capsys.readouterr().err == f"{line}run {sys.executable} -m pip install scikit-learn\n"


def test_a_missing_module_of_the_project_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError):
        run_guarded(raising(ModuleNotFoundError("No module named 'suites.nothing'", name="suites.nothing")))


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "backend=null"),
        ("search", "backend=ort"),
        ("batch", "x"),
        ("report",),
        ("choose",),
        ("capacity",),
        ("advise", "x"),
        ("export", "x", "y"),
        ("deploy", "x", "y"),
        ("compare", "x", "y"),
    ],
)
@pytest.mark.parametrize("start", ["suites.{}", "suites {}"])
def test_a_python_without_the_libraries_gives_one_line(arguments: tuple[str, ...], start: str) -> None:
    command, *rest = arguments
    bare = [sys.executable, "-S", "-m", *start.format(command).split()]  # -S: without site-packages
    done = subprocess.run([*bare, *rest], cwd=ROOT, capture_output=True, text=True)
    line = f"refused: hydra-core is not installed in {sys.executable}; activate .venv"
    assert (done.returncode, done.stderr.startswith(line), done.stderr.count("\n")) == (2, True, 1), done.stderr


def test_every_library_that_commands_need_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {re.split("[<>=]", text)[0] for text in project["dependencies"]}
    names = {
        dependencies.DISTRIBUTIONS.get(module, module) for module in (*dependencies.NEEDED, *dependencies.DISTRIBUTIONS)
    }
    indirect = {"omegaconf", "PyYAML"}  # dependencies of hydra-core
    assert names - indirect <= required
