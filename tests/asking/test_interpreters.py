"""Interpreters that cannot work are refused before a worker starts."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from suites.asking.interpreters import interpreter_path
from suites.schema.refusals import Refused


def test_a_relative_path_is_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "python").symlink_to(sys.executable)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    # The link is not resolved, because it identifies the virtual environment.
    assert interpreter_path("interpreter.main", "../venv/python") == str(tmp_path / "venv" / "python")
    monkeypatch.chdir(tmp_path / "venv")
    assert interpreter_path("interpreter.main", "./python") == str(tmp_path / "venv" / "python")


def test_a_name_without_a_folder_is_searched_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python9").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert interpreter_path("interpreter.main", "python9") == str(tmp_path / "python9")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("folder", "is a folder"),
        ("text", "it is not an executable file"),
        ("missing", "there is no such file"),
        ("dangling", "there is no such file"),
        ("fifo", "it is not an executable file"),
        ("nul\0", "not an executable Python"),
        ("text/python", "there is no such file"),
    ],
)
def test_a_path_that_is_not_a_program_is_refused(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("text").write_text("hello")
    Path("dangling").symlink_to("nowhere")
    os.mkfifo("fifo")
    with pytest.raises(Refused, match=says) as refused:
        interpreter_path("interpreter.main", name)
    assert str(refused.value).startswith("interpreter.main=")
    assert "\n" not in str(refused.value)


def test_a_program_in_an_unreadable_folder_is_not_reported_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: object, *_: object, **__: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "stat", closed)
    with pytest.raises(Refused, match=r"is not an executable Python .*Permission denied"):
        interpreter_path("interpreter.main", str(tmp_path / "python"))
