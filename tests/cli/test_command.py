"""The command `inference-suites`: its help, its subcommands, and its refusal of an unknown command."""

from __future__ import annotations

import importlib
import sys

import pytest
import tomllib
from conftest import ROOT

from suites.cli import command
from suites.cli.command_line import program
from suites.records.suite_version import VERSION, typed_command


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
    purpose, _, usage, *_ = out.splitlines()
    assert purpose.endswith(".")
    assert usage.startswith(f"usage: inference-suites {name} ")
    assert "-h, --help" in out
    examples = out.partition("examples:\n")[2].split("\n\n")[0].splitlines()
    assert len(examples) >= 2
    assert all(line.strip().startswith(f"inference-suites {name}") for line in examples)
    assert "Output: " in out
    assert "`run`" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["report", "--reslts", "x"], "there is no option --reslts; choices: -h, --help"),
        (["report", "a", "b"], "too many arguments: b; see inference-suites report --help"),
        (["report", "results=nowhere"], "is not a folder; write inference-suites report nowhere"),
        (["advise"], "TRACE is missing; see inference-suites advise --help"),
        (["advise", "x", "--memry", "3"], "did you mean --memory-mb? (available device memory"),
        (
            ["advise", "x", "presicion=fp16"],
            "there is no key presicion; did you mean precision? (Name of the precision.)",
        ),
        (["advise", "x", "fp16"], "'fp16' is not of the form key=value"),
        (["export", "x"], "DIR is missing; see inference-suites export --help"),
        (["export", "x", "y", "--forse"], "did you mean --force? (replace an earlier export"),
        (["search", "backend=ort", "--steps", "3"], "did you mean search.steps=VALUE or serving.steps=VALUE?"),
        (["search", "backend=ort", "search.cosin=1"], "did you mean search.cosine? (Smallest cosine"),
        (["process-noise"], "RESULTS is missing"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("refused: ")
    assert error.count("\n") == 1
    assert says in error


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
