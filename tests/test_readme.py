"""What the README tells a reader to type is there and composes."""

from __future__ import annotations

import re
import shlex

import pytest
from conftest import ROOT, Cli

README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^ {4}(python -m suites\.run[^#\n]*)", README, re.MULTILINE)


def test_it_begins_with_the_two_commands() -> None:
    first = re.findall(r"^ {4}(make \w+)", README, re.MULTILINE)[:2]
    assert first == ["make demo", "make test"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_compose(command: str, cli: Cli) -> None:
    overrides = [word for word in shlex.split(command.strip())[3:] if word not in ("-m", "--help")]
    # A sweep composes as its first cell does.
    single = [re.sub(r"^(\w[\w.]*=)([^\[,]+),.*$", r"\1\2", override) for override in overrides]
    done = cli("--cfg", "job", *single, folders=False)
    assert done.returncode == 0, done.stderr


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 5


def test_every_file_it_names_is_there() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    for path in re.findall(r"`((?:conf|suites|backends|results|results_h100|tests)/[\w/.]+)`", README):
        assert (ROOT / path).exists() or path in ignored, path


MADE = ("latency", "kernels", "accuracy", "recipes", "switching")


@pytest.mark.parametrize(
    ("name", "least", "folders"),
    [
        ("README", 9, ["results"]),
        ("results/tables/tensorrt", 12, ["results"]),
        ("results/tables/int8", 12, ["results"]),
        ("results_h100/tables/findings", 12, ["results_h100", "results"]),
    ],
)
def test_every_figure_it_quotes_is_in_the_tables(name: str, least: int, folders: list[str]) -> None:
    files = [ROOT / folder / "tables" / f"{made}.md" for folder in folders for made in MADE]
    tables = "".join(file.read_text() for file in files if file.exists())
    text = (ROOT / f"{name}.md").read_text()
    quoted = re.findall(r"(\d+\.\d+) [mu]s", text) + re.findall(r"0\.\d{5,6}\b", text)
    assert len(quoted) >= least
    assert [figure for figure in quoted if not re.search(rf"\| {re.escape(figure)} +[\[(|]", tables)] == []
