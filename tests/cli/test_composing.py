"""Composition of a command line: how often Hydra composes, and the key hydra.mode."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from suites.cli.composing import install
from suites.root import CONF

REFUSED = ("backend=null", "batch=[0]")


@pytest.fixture
def compositions(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that gets the mode of each composition of the main configuration."""
    install()
    composed: list[object] = []
    load = ConfigLoaderImpl.load_configuration

    def counted(self: ConfigLoaderImpl, *arguments: object, **named: object) -> object:
        composed.append(named.get("run_mode"))
        return load(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    return composed


def test_one_cell_is_composed_once(cli: Cli, compositions: list[object]) -> None:
    assert "batch=0 is too small" in cli(*REFUSED).stderr
    assert len(compositions) == 1


def test_a_wrong_choice_at_the_end_of_a_sweep_stops_the_sweep(cli: Cli, tmp_path: Path) -> None:
    done = cli("-m", "backend=null", "weights=random,wrong")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("refused: there is no weights=wrong")
    assert not (tmp_path / "results").exists()


def test_a_file_of_the_user_can_start_a_sweep(cli: Cli, compositions: list[object], tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(
        f"# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweep: {{dir: {tmp_path / 'sweep'}}}\n"
        "  sweeper:\n    params:\n      batch: '[0],[-1]'\n"
    )
    done = cli("--config-dir", str(tmp_path), "experiment=own", "backend=null")
    assert "batch=0 is too small" in done.stderr
    assert "batch=-1 is too small" in done.stderr
    assert len(compositions) == 1 + 1 + 2 * 2, "the mode, the sweep, and a check and a launch of each cell"


def test_no_file_of_the_project_sets_the_mode() -> None:
    """Otherwise a run would ignore it, see suites/cli/composing.py."""
    files = list(CONF.rglob("*.yaml"))
    assert len(files) > 30
    assert not [path for path in files if "mode: MULTIRUN" in path.read_text(encoding="utf-8")]
