"""The Dockerfiles match the project. hadolint checks the rest; a build needs a network and a daemon."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import tomllib
from conftest import ROOT

from suites.cli.command_line import PROGRAM

FILES = ("Dockerfile", "Dockerfile.cuda")
KNOWN = {"FROM", "RUN", "WORKDIR", "COPY", "ARG", "ENV", "USER", "ENTRYPOINT", "CMD"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions(file: str) -> list[tuple[str, str]]:
    """Return the instructions with their arguments; continued lines are joined."""
    lines = [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in whole)]


@pytest.mark.parametrize("file", FILES)
def test_it_has_valid_instructions_and_runs_the_command_as_an_ordinary_user(file: str) -> None:
    lines = instructions(file)
    assert {name for name, _ in lines} <= KNOWN
    assert lines[0][0] == "FROM"
    named = dict(lines)
    assert named["USER"].isdigit()
    assert int(named["USER"]) > 0
    assert json.loads(named["ENTRYPOINT"]) == [PROGRAM]
    for name, rest in lines:
        if name == "RUN":
            assert "pip install" not in rest or "--no-cache-dir" in rest
            assert shlex.split(rest)


@pytest.mark.parametrize("file", FILES)
def test_it_copies_all_files_that_an_installation_needs(file: str) -> None:
    copied = {word for name, rest in instructions(file) if name == "COPY" for word in rest.split()[:-1]}
    needed = {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "suites", "backends"}
    assert copied == needed
    assert all((ROOT / name).exists() for name in copied)
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    assert sent == copied


@pytest.mark.parametrize("file", FILES)
def test_its_versions_match_the_project(file: str) -> None:
    text = (ROOT / file).read_text()
    pinned = re.findall(r" (\w[\w-]*==[\d.]+)", text)
    assert "torch==2.13.0" in pinned
    make = (ROOT / "Makefile").read_text()
    assert [
        requirement for requirement in pinned if requirement not in PROJECT["dependencies"] and requirement not in make
    ] == []
    (python,) = re.findall(r"^FROM python:(\d+\.\d+)-", text, re.MULTILINE)
    assert PROJECT["requires-python"] == f">={python}"


@pytest.mark.parametrize("file", FILES)
def test_it_says_that_it_has_not_been_built(file: str) -> None:
    """Remove this test and the line when an image has been built from the file."""
    assert "has not been built yet" in (ROOT / file).read_text()
