"""The defaults of results= and cache= are the user's own folders if the current folder cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from suites import advise, report
from suites.asking import user_folders
from suites.asking.user_folders import DEFAULTS, can_be_written, chosen_folder, default_folder
from suites.schema import config


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the current folder read-only for every user; the user's folders are next to it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(user_folders, "_said", set())
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(folder) and access(path, mode))
    return folder


def test_defaults_match_the_configuration() -> None:
    assert {"results": config.RunConfig.results, "cache": config.RunConfig.cache} == DEFAULTS


def test_a_writable_folder_gets_results_and_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert {key: default_folder(key) for key in DEFAULTS} == DEFAULTS
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_a_read_only_folder_uses_the_users_folders_with_one_note(
    read_only: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert chosen_folder("results", "results/runs") == str(tmp_path / "data" / "inference-suites" / "results")
        assert chosen_folder("cache", ".cache") == str(tmp_path / "caches" / "inference-suites")
    results, cache = capsys.readouterr().err.splitlines()
    assert results == f"the current folder is read-only: results={tmp_path}/data/inference-suites/results is used " + (
        "instead of results=results/runs"
    )
    assert cache == (
        f"the current folder is read-only: cache={tmp_path}/caches/inference-suites is used instead of cache=.cache"
    )


@pytest.mark.parametrize("given", ["", "relative/folder"])
def test_without_variables_the_folders_are_in_the_home_folder(
    given: str, read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, given)
    assert default_folder("results") == str(tmp_path / ".local" / "share" / "inference-suites" / "results")
    assert default_folder("cache") == str(tmp_path / ".cache" / "inference-suites")


def test_a_configured_folder_is_never_replaced(read_only: Path) -> None:
    assert chosen_folder("results", "elsewhere") == "elsewhere"
    assert chosen_folder("cache", str(read_only)) == str(read_only)


def test_a_user_without_folders_gets_the_refusal_of_the_current_one(
    read_only: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(read_only / "below"))
    assert default_folder("results") == "results/runs"
    assert capsys.readouterr().err == ""


def test_a_missing_folder_is_writable_if_its_nearest_parent_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert can_be_written(tmp_path / "a" / "b")
    assert not can_be_written(tmp_path / "file")
    assert not can_be_written(tmp_path / "file" / "a")
    (tmp_path / "link").symlink_to("nowhere")
    assert not can_be_written(tmp_path / "link" / "a")


def test_reports_and_advice_read_the_folder_of_runs(
    read_only: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = str(tmp_path / "data" / "inference-suites" / "results")
    assert report.main([]) == 2
    assert f"refused: {own} has no records" in capsys.readouterr().err
    (tmp_path / "trace").write_text("1 16\n2 16\n")
    assert advise.main([str(tmp_path / "trace")]) == 2
    assert f"refused: {own} has no records" in capsys.readouterr().err
