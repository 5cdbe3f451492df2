"""A default is in the schema only, and each file of suites/conf/ has a question or a difference of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from backends.config_key import keys_of, to_json_types
from suites.cli.batch_file import read_lines
from suites.root import CONF
from suites.schema.run_schema import run_schema

OWN_FACTS = ("backend", "suite")
"""Groups whose files also repeat facts of the schema."""

GLOBAL = "# @package _global_\n"
DEFAULTS = to_json_types(asdict(run_schema()()))
GROUP_FILES = [file for file in sorted(CONF.glob("*/*.yaml")) if file.parent.name not in OWN_FACTS]
EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))
BATCHES = sorted((CONF / "batches").glob("*.txt"))
CHOSEN = {
    group: choice
    for entry in yaml.safe_load((CONF / "run.yaml").read_text())["defaults"]
    if isinstance(entry, dict)
    for group, choice in entry.items()
}
"""Choice of each group in run.yaml."""


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of nested mappings with their values. An empty mapping is a value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def set_keys(text: str, group: str) -> dict[str, Any]:
    """Return the keys that a file of a group sets, with their values. Settings of Hydra are not keys."""
    values = yaml.safe_load(text) or {}
    prefix = "" if text.startswith(GLOBAL) else f"{group}."
    ignored = ("defaults.", "hydra.")
    return {key: value for key, value in leaves(values, prefix) if not f"{key}.".startswith(ignored)}


def repeated(text: str, group: str) -> list[str]:
    """Return the keys that a file sets to the default of the schema."""
    defaults = dict(leaves(DEFAULTS))
    missing = object()
    return [key for key, value in set_keys(text, group).items() if defaults.get(key, missing) == value]


def test_a_repeated_default_is_found() -> None:
    assert repeated("positions: 512\nhub: a/b\n", "model") == ["model.positions"]
    assert repeated(f"{GLOBAL}batch: [1, 8]\nsequence: [1]\nhydra: {{sweeper: {{}}}}\n", "experiment") == ["batch"]
    assert repeated("# only a comment\n", "task") == []


@pytest.mark.parametrize("file", [CONF / "run.yaml", *GROUP_FILES], ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_file_sets_no_key_to_its_default(file: Path) -> None:
    text = file.read_text()
    assert repeated(GLOBAL + text if file.name == "run.yaml" else text, file.parent.name) == []


def test_a_file_chooses_no_group_as_run_yaml_does() -> None:
    for file in GROUP_FILES:
        entries = (yaml.safe_load(file.read_text()) or {}).get("defaults", [])
        for group, choice in (item for entry in entries for item in entry.items()):
            assert CHOSEN.get(group.removeprefix("override /")) != choice, f"{file.name}: {group}"


def test_two_files_of_a_group_differ() -> None:
    contents: dict[tuple[str, str], str] = {}
    for file in GROUP_FILES:
        content = (file.parent.name, str(yaml.safe_load(file.read_text())))
        assert content not in contents, f"{file.name} repeats {contents.get(content)}"
        contents[content] = file.name


def test_a_default_path_is_written_in_the_schema_only() -> None:
    paths = [key.default for key in keys_of(run_schema()) if key.type == "text" and "/" in key.default]
    assert "results/runs" in paths
    for file in (ROOT / "suites").rglob("*.py"):
        if file.parent.name != "schema":
            nodes = ast.walk(ast.parse(file.read_text()))
            texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
            assert [text for text in texts if any(path in text for path in paths)] == [], file.name


def split_values(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    values, depth = [""], 0
    for letter in text:
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == "," and not depth:
            values.append("")
        else:
            values[-1] += letter
    return values


def cells_of(words: Sequence[str]) -> set[frozenset[tuple[str, str]]]:
    """Return the cells of a command line or an experiment. Each has its keys that differ from the defaults."""
    defaults = {f"{key}={value}" for key, value in CHOSEN.items()} | {
        f"{key.name}={key.default}" for key in keys_of(run_schema())
    }
    pairs = [word.partition("=") for word in words]
    choices = [[(key, value) for value in split_values(values.replace(" ", ""))] for key, _, values in pairs]
    return {frozenset(pair for pair in cell if "=".join(pair) not in defaults) for cell in product(*choices)}


def measured_by(file: Path) -> set[frozenset[tuple[str, str]]]:
    """Return the cells of an experiment or a batch."""
    if file.suffix == ".txt":
        return {cell for words in read_lines(file) for cell in cells_of([word for word in words if word != "-m"])}
    values = yaml.safe_load(file.read_text())
    swept = values.pop("hydra")["sweeper"]["params"]
    return cells_of([f"{key}={value}" for key, value in {**values, **swept}.items()])


def test_an_experiment_or_a_batch_repeats_no_other_one() -> None:
    cells = {file.name: measured_by(file) for file in (*EXPERIMENTS, *BATCHES)}
    assert cells_of(["model=minilm", "batch=[1,8],[[2],[3]]"]) == {frozenset(), frozenset({("batch", "[[2],[3]]")})}
    for name, own in cells.items():
        for other, others in cells.items():
            assert name == other or not own <= others, f"{name} repeats {other}"


@pytest.mark.parametrize("file", [*EXPERIMENTS, *BATCHES], ids=lambda file: file.stem)
def test_the_first_comment_is_the_question(file: Path) -> None:
    comments = file.read_text().removeprefix(GLOBAL).split("\n")
    block = " ".join(line[1:].strip() for line in comments[: [line[:1] == "#" for line in comments].index(False)])
    assert block.startswith("Question: ")
    assert "?" in block.partition("python -m")[0]
