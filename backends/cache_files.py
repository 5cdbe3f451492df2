"""Files and folders of the cache: ownership checks, permissions, locks and removal.

The suite executes files from the cache (engines, compiled kernels). So it trusts a file only if no other user could
have written it: its owner is this user or root, and nobody else has write permission. Other users can read the files
of this process if the umask allows it. Only this user can write them, for every umask.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH
PARTIAL = re.compile(r"\.([0-9a-f]{24})\.[^.]+")
"""Name of an incomplete entry: a dot, the name of the entry, a dot and a unique suffix."""


def trust_fault(path: Path) -> str:
    """Return the reason why another user could have written the contents of a folder; empty if none could.

    Links are not followed. Members of a group count as other users.

    Raises:
        OSError: the path cannot be read.
    """
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        return "it is not a folder"
    if reason := _distrust(status):
        return reason
    others_enter = bool(status.st_mode & OTHERS_ENTER)
    for folder, folders, files in os.walk(path, onerror=_raise):
        for name in (*folders, *files):
            inner = os.lstat(os.path.join(folder, name))
            if stat.S_ISLNK(inner.st_mode) or not (stat.S_ISREG(inner.st_mode) or stat.S_ISDIR(inner.st_mode)):
                return f"{name} is neither a file nor a folder"
            if (reason := _distrust(inner)) and (others_enter or not inner.st_mode & OTHERS_WRITE):
                return f"{name}: {reason}"
    return ""


def folder_trust_fault(path: Path) -> str:
    """Return the reason why another user could have written a folder, without a check of its contents.

    Links are followed.
    """
    status = os.stat(path)
    return _distrust(status) if stat.S_ISDIR(status.st_mode) else "it is not a folder"


def _distrust(status: os.stat_result) -> str:
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to another user (uid {status.st_uid})"
    return "other users can write it" if status.st_mode & OTHERS_WRITE else ""


def _raise(error: OSError) -> None:
    raise error


def make_private_folder(path: Path) -> None:
    """Make a folder that other users cannot write. If it exists, remove their write permission.

    Raises:
        PermissionError: it exists and belongs to another user.
    """
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = os.stat(path)
    if status.st_uid not in (0, os.geteuid()):
        raise PermissionError(errno.EACCES, f"the folder belongs to another user (uid {status.st_uid})", str(path))
    if status.st_mode & OTHERS_WRITE and status.st_uid == os.geteuid():
        os.chmod(path, stat.S_IMODE(status.st_mode) & ~OTHERS_WRITE)


def new_partial(entry: Path) -> Path:
    """Make a new folder in which `entry` can be built. The umask sets its permissions; others can never write it."""
    path = entry.parent / f".{entry.name}.{secrets.token_hex(6)}"
    path.mkdir(mode=0o755)
    return path


def share(folder: Path) -> None:
    """Give all files below `folder` the read permissions of `folder`. Some libraries write private files."""
    mode = stat.S_IMODE(os.lstat(folder).st_mode) & 0o755
    for path in folder.rglob("*"):
        path_mode = os.lstat(path).st_mode
        if stat.S_ISDIR(path_mode) or (stat.S_ISREG(path_mode) and path_mode & stat.S_IXUSR):
            path.chmod(mode)
        elif stat.S_ISREG(path_mode):
            path.chmod(mode & ~0o111)


def remove(path: Path) -> None:
    """Remove a file, link or folder, if it exists. A folder that cannot be emptied is renamed.

    Raises:
        OSError: it can be neither removed nor renamed.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    except OSError:
        if not os.path.lexists(path):
            return
        renamed = path.parent / f".{path.name.strip('.')}.{secrets.token_hex(6)}"
        os.rename(path, renamed)
        shutil.rmtree(renamed, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for an exclusive advisory lock on `path` and keep it during the block.

    The lock file is created if it is missing, and replaced if it cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ELOOP, errno.EACCES, errno.ENXIO):
            raise
        remove(path)
        return os.open(path, flags, 0o644)


def remove_partials(root: Path) -> None:
    """Remove incomplete entries below `root` whose builder was killed. The lock of such an entry is free."""
    with contextlib.suppress(OSError):
        for folder in [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]:
            _remove_partials_in(folder)


def _remove_partials_in(folder: Path) -> None:
    for name in os.listdir(folder):
        match = PARTIAL.fullmatch(name)
        if not match or name.endswith(".lock"):
            continue
        with contextlib.suppress(OSError):
            descriptor = _open_lock(folder / f".{match[1]}.lock")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder / name)
            finally:
                os.close(descriptor)
