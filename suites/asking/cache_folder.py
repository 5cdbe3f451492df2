"""The cache folder of this user.

Code in a cache is executed, so only one user uses a cache. If the folder of `cache=` belongs to another user, or if
others can replace files in it, the cache is its subfolder uid-NUMBER, which belongs to this user. So several users can
give the same folder, but no user runs code that another user wrote.

Folders in the cache:

    KIND/DIGEST/          artifacts, see backends/cache.py; other users can read them as the umask allows
    compilers-UID/        caches of compilers (inductor, triton) with pickles; private to this user
    jobs/NAME/STAGE/      files that a worker reads and writes, see suites/running/job_folders.py
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from backends.cache_files import folder_trust_fault
from suites.schema.refusals import Refused, unwritten, writable


def user_cache(path: str) -> Path:
    """Return the cache of this user in the folder of cache=. Missing folders are created.

    Raises:
        Refused: the folder cannot be written, or its folder uid-NUMBER does not belong to this user alone.
    """
    with contextlib.suppress(OSError, ValueError):
        # The group must not get write permission, whatever the umask is: the cache would not be trusted next time.
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).mkdir(mode=0o755)
    folder = writable("cache", path)
    try:
        if not folder_trust_fault(folder) or _sticky(folder):
            return folder
        own = folder / f"uid-{os.geteuid()}"
        with contextlib.suppress(FileExistsError):
            own.mkdir(mode=0o755)
        reason = "it is a link" if own.is_symlink() else folder_trust_fault(own)
    except OSError as error:
        raise Refused(f"cache={path} cannot be used ({error.strerror}); choose another folder") from None
    if reason:
        raise Refused(f"cache={path}: {own.name} in it cannot be trusted: {reason}; choose a folder of your own")
    return writable("cache", str(own))


def existing_cache(path: str) -> Path:
    """Return the cache that `user_cache` would return, and write nothing. It may not exist yet.

    Raises:
        Refused: the folder cannot be written.
    """
    folder = unwritten("cache", path)
    own = folder / f"uid-{os.geteuid()}"
    with contextlib.suppress(OSError):
        if folder_trust_fault(folder) and not _sticky(folder):
            return own
    return folder


def _sticky(folder: Path) -> bool:
    """Return whether the folder belongs to this user and others cannot replace this user's files in it, as in /tmp.

    Others can add folders. A folder in it is used only if it belongs to this user.
    """
    status = os.stat(folder)
    return status.st_uid == os.geteuid() and bool(status.st_mode & stat.S_ISVTX)


def compiler_caches(cache: Path) -> Path | None:
    """Return the folder for caches of compilers. It is created if it is missing; None if other users can access it."""
    folder = cache / f"compilers-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    status = os.lstat(folder)
    private = not stat.S_IMODE(status.st_mode) & 0o077
    return folder if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and private else None
