"""The cache folder of this user, and the folders of jobs in it.

A cache is used by one user alone, because what is in it is run. If `cache=` names a folder that belongs to another user
or in which others can replace files, the cache is its subfolder uid-NUMBER, which belongs to this user. So several
users can give the same folder, but nothing that one of them wrote is run by another.

Below the cache:

    KIND/DIGEST/          artifacts, see backends/cache.py; other users can read them as the umask allows
    compilers-UID/        caches of compilers (inductor, triton), which hold pickles: for this user alone
    jobs/NAME/STAGE/      what a worker reads and writes, see suites/job_folders.py
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from backends.cache_files import folder_distrust
from suites.checks import Refused, writable


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
