"""The command `inference-suites`: its help, its subcommands, and its refusal of an unknown command."""

from __future__ import annotations

import importlib
import sys

import pytest
import tomllib
from conftest import ROOT

from suites import command
from suites.command_line import program
from suites.maker import VERSION, typed_command


@pytest.fixture(autouse=True)
def _script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/venv/bin/inference-suites"])


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_the_help_has_one_line_per_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (_, text) in command.COMMANDS.items():
        assert [line for line in lines if line.split(maxsplit=1) == [name, text]]
    assert max(map(len, lines)) <= 100


def test_it_has_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"inference-suites {VERSION}\n"


def test_the_installed_script_calls_this_function() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"inference-suites": f"{command.__name__}:main"}


@pytest.mark.parametrize("name", command.COMMANDS)
def test_a_command_runs_the_main_function_of_its_module(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(command.COMMANDS[name][0])
    seen = []
    monkeypatch.setattr(module, "main", lambda arguments: seen.append((list(arguments), sys.argv[1:])) or 3)
    monkeypatch.setattr(sys, "argv", ["inference-suites", name, "a=b", "--help"])
    assert command.main() == 3
    assert seen == [(["a=b", "--help"], ["a=b", "--help"])]


@pytest.mark.parametrize("name", command.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = command.main([name, "--help"])
    except SystemExit as end:
        status = end.code  # type: ignore[assignment]
    assert status == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) > 3
    if out.startswith("usage:"):
        assert out.startswith(f"usage: inference-suites {name}")


def test_a_module_that_is_started_names_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert program("process-noise") == "inference-suites process-noise"
    monkeypatch.setattr(sys, "argv", ["/project/suites/process_noise.py"])
    assert program("process-noise") == "python -m suites.process_noise"


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("serch", "there is no command serch; did you mean search? choices: run, search,"),
        ("Run", "did you mean run?"),
        ("process_noise", "did you mean process-noise?"),
        ("reports", "did you mean report?"),
        ("adv", "did you mean advise?"),
        ("--run", "did you mean run?"),
        ("xyzzy", "there is no command xyzzy; choices: run,"),
        ("backend=ort", "did you mean inference-suites run backend=ort?"),
        ("a\nb", "there is no command a b;"),
        ("x" * 5000, "there is no command xxx"),
        ("", "there is no command"),
    ],
)
def test_an_unknown_command_names_the_nearest(typed: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([typed, "precision=int8"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("refused: ")
    assert error.count("\n") == 1
    assert says in error
    assert len(error) < 500


def test_a_record_has_the_typed_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["/venv/bin/python3", "/venv/bin/inference-suites", "run", "seed=1"])
    assert typed_command() == ("inference-suites", "run", "seed=1")
    monkeypatch.setattr(sys, "orig_argv", ["/venv/bin/python3", "-m", "suites.run", "seed=1"])
    monkeypatch.setattr(sys, "executable", "/venv/bin/python3")
    assert typed_command() == ("python3", "-m", "suites.run", "seed=1")
