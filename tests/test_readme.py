"""What the README tells a reader to type is there and composes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

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
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    for path in re.findall(r"`((?:suites|backends|results|tests)/[\w/.-]+)`", README):
        assert (ROOT / path).exists() or any(path.startswith(known) for known in ignored), path


REFERENCE = ROOT / "results" / "reference"
MADE = ("latency", "kernels", "accuracy", "recipes", "switching")


@pytest.mark.parametrize(
    ("file", "least"),
    [
        ("README.md", 9),
        ("results/reference/findings/tensorrt.md", 12),
        ("results/reference/findings/int8.md", 12),
        ("results/reference/findings/h100.md", 12),
    ],
)
def test_every_figure_it_quotes_is_in_the_tables(file: str, least: int) -> None:
    tables = "".join(table.read_text() for name in MADE for table in REFERENCE.glob(f"*/tables/{name}.md"))
    text = (ROOT / file).read_text()
    quoted = re.findall(r"(\d+\.\d+) [mu]s", text) + re.findall(r"0\.\d{5,6}\b", text)
    assert len(quoted) >= least
    assert [figure for figure in quoted if not re.search(rf"\| {re.escape(figure)} +[\[(|]", tables)] == []


@pytest.mark.parametrize("file", [ROOT / "results" / "README.md", *sorted((REFERENCE / "findings").glob("*.md"))])
def test_links_between_committed_files_lead_somewhere(file: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text())
    assert links
    assert [link for link in links if not (file.parent / link).exists()] == []
