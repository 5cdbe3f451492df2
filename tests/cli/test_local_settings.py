"""The file that names interpreters of this machine: where it is found, and how a bad file is refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from suites import run
from suites.cli import local_settings
from suites.cli.help import CONF
from suites.schema.refusals import Refused


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Create a current folder and a settings folder without a file, and without settings of an older version."""
    (tmp_path / "config" / "inference-suites").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(local_settings, "FORMER", tmp_path / "former.yaml")
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path
    ConfigStore.instance().repo.get("interpreter", {}).pop("local.yaml", None)


def test_the_current_folder_has_priority_over_user_settings_and_older_settings(home: Path) -> None:
    assert local_settings.interpreters() == {}
    (home / "former.yaml").write_text('main: ""\ntrt: /former/python\n')
    assert local_settings.interpreters() == {"main": "", "trt": "/former/python"}
    (home / "config" / "inference-suites" / "inference-suites.yaml").write_text("interpreter: {trt: /user/python}")
    assert local_settings.interpreters() == {"trt": "/user/python"}
    Path("inference-suites.yaml").write_text("interpreter:\n  main:\n  trt: venv/bin/python\n")
    assert local_settings.interpreters() == {"trt": str(home / "here" / "venv" / "bin" / "python")}


def test_without_a_variable_the_settings_are_in_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("", "relative"):
        monkeypatch.setenv("XDG_CONFIG_HOME", variable)
        monkeypatch.setenv("HOME", str(home))
        folder = home / ".config" / "inference-suites"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "inference-suites.yaml").write_text("interpreter: {trt: ~/python}")
        assert local_settings.interpreters() == {"trt": str(home / "python")}


def test_hydra_gets_the_settings_unless_the_command_line_chooses_others(home: Path) -> None:
    def trt(*overrides: str) -> str:
        local_settings.register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return str(compose("run", list(overrides)).interpreter.trt)

    Path("inference-suites.yaml").write_text("interpreter: {trt: /file/python}")
    assert trt() == "/file/python"
    assert trt("interpreter.trt=/typed/python") == "/typed/python"
    assert trt("interpreter=main") == ""
    Path("inference-suites.yaml").unlink()
    assert trt() == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"interpreter: {trt: [", "line 1: the file is not valid YAML"),
        (b"a: b\n  b: c\n", "line 2: the file is not valid YAML"),
        (b"[1, 2]", "must be a mapping, e.g. interpreter:"),
        (b"hello", "must be a mapping"),
        (b"interpreter: /usr/bin/python3", "interpreter must be a mapping"),
        (b"interpretr: {trt: /usr/bin/python3}", "there is no key interpretr; did you mean interpreter?"),
        (b"trt: /usr/bin/python3", "there is no key trt; choices: interpreter"),
        (b"interpreter: {tr: /usr/bin/python3}", "no key interpreter.tr; did you mean interpreter.trt?"),
        (b"interpreter: {trt: [a]}", "interpreter.trt must be the path of a Python"),
        (b"interpreter: {trt: 3}", "interpreter.trt must be the path of a Python"),
        (b"\xff\xfe", "is in UTF-16"),
        (b"\xe4", "line 1: it is not UTF-8"),
        (b"\x00", "the file is not valid YAML"),
    ],
)
def test_a_broken_file_is_named_in_one_line(
    text: bytes, says: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("inference-suites.yaml").write_bytes(text)
    monkeypatch.setattr(sys, "argv", ["run", "backend=null"])
    assert run.main() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("refused: inference-suites.yaml")
    assert says in error


def test_a_broken_file_of_an_older_version_is_named(home: Path) -> None:
    (home / "former.yaml").write_text("other: /usr/bin/python3")
    with pytest.raises(Refused, match=r"former\.yaml: there is no key interpreter\.other; .*choices: main, trt"):
        local_settings.interpreters()


@pytest.mark.parametrize("fault", ["owner", "mode"])
def test_a_file_that_other_users_can_write_is_ignored(
    fault: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file names programs that a run would start, and it may be in a folder such as /tmp."""
    path = Path("inference-suites.yaml")
    path.write_text("interpreter: {trt: /evil/python}")
    if fault == "mode":
        path.chmod(0o666)
    else:
        uid = os.stat(path).st_uid
        if uid == 0:
            os.chown(path, 12345, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert local_settings.interpreters() == {}
    error = capsys.readouterr().err
    assert "inference-suites.yaml is ignored: " in error
    assert error.count("\n") == 1


def test_a_file_that_cannot_be_read_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("inference-suites.yaml").write_text("interpreter: {}")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(Refused, match=r"inference-suites\.yaml cannot be read \(Permission denied\)"):
        local_settings.interpreters()
