"""The cache folder of this user, and the folders of jobs in it.

A cache is used by one user alone, because what is in it is run. If `cache=` names a folder that belongs to another user
or in which others can replace files, the cache is its subfolder uid-NUMBER, which belongs to this user. So several
users can give the same folder, but nothing that one of them wrote is run by another.

Below the cache:

    KIND/DIGEST/          artifacts, see backends/cache.py; other users can read them as the umask allows
    compilers-UID/        caches of compilers (inductor, triton), which hold pickles: for this user alone
    jobs/NAME/STAGE/      what a worker reads and writes; kept after a cell that failed, for its log
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from backends.cache_files import folder_distrust, locked, own_folder
from suites.checks import Refused, writable
from suites.clock import now_ns

KEPT_JOBS = 50
RUNNING = ".running"
"""A file in the folder of a job, which is locked while the job runs and removed when it ends."""


def cache_of(path: str) -> Path:
    """The cache of this user in the folder that cache= names; both are made if they are missing.

    Raises:
        Refused: it cannot be written, or a folder in it that must be this user's is another's.
    """
    with contextlib.suppress(OSError, ValueError):
        # A mode without writing for the group, whatever the umask: else the cache would not be trusted next time.
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).mkdir(mode=0o755)
    folder = writable("cache", path)
    try:
        if not folder_distrust(folder) or _sticky(folder):
            return folder
        own = folder / f"uid-{os.geteuid()}"
        with contextlib.suppress(FileExistsError):
            own.mkdir(mode=0o755)
        reason = "it is a link" if own.is_symlink() else folder_distrust(own)
    except OSError as error:
        raise Refused(f"cache={path} cannot be used ({error.strerror}); choose another folder") from None
    if reason:
        raise Refused(f"cache={path}: {own.name} in it cannot be trusted: {reason}; choose a folder of your own")
    return writable("cache", str(own))


def _sticky(folder: Path) -> bool:
    """Whether it is this user's, and others can add files to it but not replace this user's, as in /tmp. Folders in it
    are used only if they are this user's too."""
    found = os.stat(folder)
    return found.st_uid == os.geteuid() and bool(found.st_mode & stat.S_ISVTX)


def compiler_caches(cache: Path) -> Path | None:
    """The folder of caches of compilers, which nobody else can have written; None if there is one that others can."""
    folder = cache / f"compilers-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    found = os.lstat(folder)
    private = not stat.S_IMODE(found.st_mode) & 0o077
    return folder if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and private else None


@contextlib.contextmanager
def job_folder(cache: Path) -> Iterator[Path]:
    """A new folder for the workers of one cell. It is removed if the block ends with an exception.

    Folders of cells whose run was killed are removed first, and the oldest of the others beyond KEPT_JOBS.

    Raises:
        OSError: it cannot be made.
    """
    jobs = cache / "jobs"
    own_folder(jobs)
    with locked(jobs / ".lock"):
        with contextlib.suppress(OSError):
            _remove_old(jobs)
        folder = jobs / f"{os.getpid()}-{now_ns()}"
        folder.mkdir(parents=True)
        running = os.open(folder / RUNNING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(running, fcntl.LOCK_EX)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        with contextlib.suppress(OSError):
            (folder / RUNNING).unlink(missing_ok=True)
        os.close(running)


def _remove_old(jobs: Path) -> None:
    """Remove folders of jobs that were killed, and all but the last KEPT_JOBS of those that ended."""
    ended: list[tuple[int, Path]] = []
    for folder in jobs.iterdir():
        if not folder.is_dir() or folder.is_symlink():
            continue
        try:
            running = os.open(folder / RUNNING, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            with contextlib.suppress(OSError):
                ended.append((folder.stat().st_mtime_ns, folder))
            continue
        try:
            fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(running)
    for _, folder in sorted(ended)[:-KEPT_JOBS]:
        shutil.rmtree(folder, ignore_errors=True)
