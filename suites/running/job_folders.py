"""Folders of jobs in the cache: jobs/OWNER-NUMBER/STAGE/ has the files that a worker reads and writes, and its log.

The folder of a cell that failed is kept for its log. The newest KEPT of these folders are kept. Other folders are
removed when their cell ends, also after an interrupt. While a cell runs, its folder has a file RUNNING. The process
that made the folder is the owner. The owner keeps a file locked until it ends; the kernel removes the lock even if the
owner is killed. So a later process can find folders that no process uses any more.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
from pathlib import Path

from backends.cache_files import locked, make_private_folder
from suites.measuring.clock import now_ns

KEPT = 50
RUNNING = ".running"

_owned: dict[Path, int] = {}
"""Descriptors of the locks of this process, by path of the lock file."""

_running: set[Path] = set()
"""Folders of this process whose cells have not ended."""


def new_job(cache: Path) -> Path:
    """Create a folder for a cell. Folders of killed processes, and kept folders beyond KEPT, are removed first.

    Raises:
        OSError: the folder cannot be created, or the folder of jobs belongs to another user.
    """
    jobs = cache / "jobs"
    make_private_folder(jobs)
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
    """Keep the folder of an ended cell for its log, or remove it."""
    _running.discard(folder)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / RUNNING).unlink(missing_ok=True)


def _lock_of_this_process(jobs: Path) -> Path:
    """Return the lock file of this process. It is created if it is missing, and locked until the process ends."""
    # Hosts that share the cache have processes with equal ids.
    host = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    path = jobs / f".{os.getpid()}.{host}.owner"
    if path in _owned and path.exists():
        return path
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if path in _owned:
        os.close(_owned[path])
    _owned[path] = descriptor
    return path


def _is_free(path: Path) -> bool:
    """Return whether the process that locked `path` has ended."""
    return path not in _owned and lock_is_free(path, missing=True)


def lock_is_free(path: Path, *, missing: bool) -> bool:
    """Return whether no process holds the lock on a file; `missing` if the file cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return missing
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
    """Remove the folders of cells that an interrupt stopped."""
    for folder in list(_running):
        end_job(folder, keep=False)
    for path in _owned:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
