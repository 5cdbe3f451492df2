"""Folders of jobs in the cache: jobs/OWNER-NUMBER/STAGE/ has what a worker reads and writes, and its log.

The folder of a cell that failed is kept for its log, and the last KEPT of them stay. Other folders are removed when
their cell ends, also by an interrupt. While a cell runs, its folder has a file RUNNING in it. The process that made it,
the owner, holds a lock until it ends, however it ends: so a later process can tell which folders nobody uses any more.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from backends.cache_files import locked, own_folder
from suites.clock import now_ns

KEPT = 50
RUNNING = ".running"

_owned: dict[Path, int] = {}
"""Descriptors of the locks of this process, by the lock's path."""

_running: set[Path] = set()
"""Folders of this process whose cells have not ended."""


def new_job(cache: Path) -> Path:
    """A new folder for a cell. Folders that killed processes left are removed first, and the oldest ones beyond KEPT.

    Raises:
        OSError: it cannot be made, or the folder of jobs is another user's.
    """
    jobs = cache / "jobs"
    own_folder(jobs)
    with locked(jobs / ".lock"):
        with contextlib.suppress(OSError):
            _remove_old(jobs)
        owner = _lock_of_this_process(jobs)
        folder = jobs / f"{owner.name.removesuffix('.owner').lstrip('.')}-{now_ns()}"
        folder.mkdir()
        try:
            (folder / RUNNING).touch()
        except OSError:
            folder.rmdir()
            raise
    _running.add(folder)
    return folder


def end_job(folder: Path, keep: bool) -> None:
    """The cell of `folder` has ended: keep the folder for its log, or remove it."""
    _running.discard(folder)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / RUNNING).unlink(missing_ok=True)


def _lock_of_this_process(jobs: Path) -> Path:
    """The file whose lock this process holds until it ends; made if it is missing."""
    path = jobs / f".{os.getpid()}.owner"
    if path in _owned and path.exists():
        return path
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if path in _owned:
        os.close(_owned[path])
    _owned[path] = descriptor
    return path


def _is_free(path: Path) -> bool:
    """Whether the process that holds the lock at `path` has ended."""
    if path in _owned:
        return False
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _remove_old(jobs: Path) -> None:
    ended: list[tuple[int, Path]] = []
    for path in jobs.iterdir():
        if path.name.endswith(".owner"):
            if _is_free(path):
                path.unlink(missing_ok=True)
        elif path.is_dir() and not path.is_symlink():
            if not (path / RUNNING).exists():
                ended.append((path.stat().st_mtime_ns, path))
            elif _is_free(jobs / f".{path.name.partition('-')[0]}.owner"):
                shutil.rmtree(path, ignore_errors=True)
    for _, folder in sorted(ended)[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


@atexit.register
def _end_all() -> None:
    """Remove what an interrupt left: folders of cells that had not ended."""
    for folder in list(_running):
        end_job(folder, keep=False)
    for path in _owned:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
