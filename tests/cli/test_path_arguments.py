"""Paths are value_of as typed, with any characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from suites.cli.path_arguments import COLUMN_KEYS, PATH_KEYS, interpreter_keys, path_options, quoted_path
from suites.root import CONF

NAMES = [
    "lr=3e-5/epoch=2", "my model", "modèle-é新卷",
    "model (1)", "bs=32,lr=1e-4", "o'neil", "a#b", "a@b", "x[1]", "50%", "a&b",
    'say "hi"', "a\\b", "a\\", "{x}", "a:b", "null",
    "true", "1e5", "  blank ", "range(0,3)", "'", '"', "$x", "[a]", "a|b;c",
    "a\nb", "a\tb", "=x", ",x", "x,", "a==b", "\\${x}",
]  # fmt: skip


def value_of(word: str) -> Any:
    """Return the value that Hydra and OmegaConf read from an override."""
    override = OverridesParser.create().parse_override(word)
    if override.is_sweep_override():
        values = [f"x={value}" for value in override.sweep_string_iterator()]
        return [value_of(value) for value in values]
    return OmegaConf.create({"path": override.value()}).path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["model.path", "+results", "task.text"])
def test_a_path_is_taken_as_typed(key: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "${" not in name:
        assert value_of(quoted_path(f"{key}={name}", sweeping=False)) == name
    for folder in (name, str(tmp_path / name)):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for sweeping in (False, True):
            assert value_of(quoted_path(f"{key}={folder}", sweeping)) == folder


def test_a_comma_separates_two_paths_of_a_sweep_unless_a_path_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bs=32,lr=1").mkdir()
    assert value_of(quoted_path("model.path=a=1,b", sweeping=True)) == ["a=1", "b"]
    assert value_of(quoted_path("model.path=a,bs=32,lr=1,c (2)", sweeping=True)) == ["a", "bs=32,lr=1", "c (2)"]
    assert value_of(quoted_path('model.path="a,b",c', sweeping=True)) == ["a,b", "c"]
    assert value_of(quoted_path("model.path=a,b", sweeping=False)) == "a,b"
    assert quoted_path("model.path=choice(a,b)", sweeping=True) == "model.path=choice(a,b)"


@pytest.mark.parametrize("value", ['"a b"', "'a=b'", '"say \\"hi\\""'])
def test_a_quoted_value_is_not_changed(value: str) -> None:
    assert quoted_path(f"model.path={value}", sweeping=False) == f"model.path={value}"


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("model.path=", "model.path="),
        ("model.name=a b", "model.name=a b"),
        ("model.path", "model.path"),
        ("results=${oc.env:HOME}/x", "results=${oc.env:HOME}/x"),
        ("trt.plugin_libraries=[a=1.so,b (2).so]", 'trt.plugin_libraries=["a=1.so","b (2).so"]'),
        ("trt.plugin_libraries=[]", "trt.plugin_libraries=[]"),
        ("faster_transformer.library=/a=1,b (2).so", 'faster_transformer.library="/a=1,b (2).so"'),
    ],
)
def test_other_arguments_are_not_changed_and_list_items_are_quoted(typed: str, read: str) -> None:
    assert quoted_path(typed, sweeping=False) == read


def test_a_tilde_is_the_home_folder_unless_a_path_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert quoted_path("model.path=~/models/a=1", sweeping=False) == 'model.path="/home/me/models/a=1"'
    Path("~").mkdir()
    assert quoted_path("model.path=~", sweeping=False) == 'model.path="~"'


def test_the_path_keys_exist_in_the_configuration() -> None:
    from suites.cli.schema_keys import known_keys
    from suites.schema.run_schema import run_schema

    assert {*PATH_KEYS, *COLUMN_KEYS, *interpreter_keys()} <= set(known_keys(run_schema()))
    assert path_options(listed=True) == ["trt.plugin_libraries"]
    assert path_options(listed=False) == ["faster_transformer.library"]
    assert CONF.is_dir()
