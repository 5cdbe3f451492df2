"""Job folders: kept for the log of a failed cell, and otherwise removed, even after a run that was killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from suites.running import job_folders
from suites.running.job_folders import RUNNING, end_job, new_job


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(job_folders, "_owned", {})
    monkeypatch.setattr(job_folders, "_running", set())
    yield
    for descriptor in job_folders._owned.values():
        os.close(descriptor)


def folders(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "jobs").iterdir() if path.is_dir())


def in_another_process(cache: Path, then: str) -> Path:
    code = (
        "import os, sys; from pathlib import Path; from suites.running.job_folders import new_job, end_job\n"
        f"folder = new_job(Path({str(cache)!r})); (folder / 'measure').mkdir(); print(folder, flush=True)\n{then}"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    return Path(done.stdout.strip())


def test_a_folder_is_removed_or_kept_when_its_cell_ends(tmp_path: Path) -> None:
    kept, removed = new_job(tmp_path), new_job(tmp_path)
    end_job(kept, keep=True)
    end_job(removed, keep=False)
    assert folders(tmp_path) == [kept]
    assert not (kept / RUNNING).exists()


def test_an_interrupted_run_removes_its_folders(tmp_path: Path) -> None:
    in_another_process(tmp_path, "raise KeyboardInterrupt")
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == [".lock"]


def test_the_folder_of_a_killed_run_is_removed_by_the_next_one(tmp_path: Path) -> None:
    running = new_job(tmp_path)
    killed = in_another_process(tmp_path, "os.kill(os.getpid(), 9)")
    assert killed.exists()
    own = new_job(tmp_path)
    assert folders(tmp_path) == sorted([running, own])
    owners = [path.name for path in (tmp_path / "jobs").iterdir() if path.name.endswith(".owner")]
    assert [owner.split(".")[1] for owner in owners] == [str(os.getpid())]


def test_the_folders_of_a_running_run_are_kept(tmp_path: Path) -> None:
    running = new_job(tmp_path)
    failed = in_another_process(tmp_path, "end_job(folder, keep=True)")
    in_another_process(tmp_path, "")
    assert folders(tmp_path) == sorted([running, failed])


def test_only_the_newest_folders_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_folders, "KEPT", 3)
    kept = []
    for number in range(6):
        kept.append(new_job(tmp_path))
        end_job(kept[-1], keep=True)
        os.utime(kept[-1], ns=(number, number))
    assert [folder.exists() for folder in kept] == [False, False, True, True, True, True]


def test_a_cache_that_is_removed_during_a_run_is_no_error(tmp_path: Path) -> None:
    folder = new_job(tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    end_job(folder, keep=True)
    assert new_job(tmp_path / "cache").exists()
