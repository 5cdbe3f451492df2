"""Files and folders of the cache: who can have written them, who may read them, and how they are locked and removed.

What is in the cache is run (engines, compiled kernels), so it is trusted only if no other user can have written it:
its owner is this user or root, and nobody else may write it. What this process writes can be read by others as the
umask allows, and written by this user alone, whatever the umask is.
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
"""The name of an entry that is not whole yet: a dot, the name of the entry, and something that occurs once."""


def distrust(path: Path) -> str:
    """Why the contents of a folder may have been written by another user; empty if they cannot.

    A link is not followed. Members of a group count as other users.

    Raises:
        OSError: the path cannot be read.
    """
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        return "it is no folder"
    if reason := _distrust(found):
        return reason
    entered = bool(found.st_mode & OTHERS_ENTER)
    for folder, folders, files in os.walk(path, onerror=_raise):
        for name in (*folders, *files):
            inner = os.lstat(os.path.join(folder, name))
            if stat.S_ISLNK(inner.st_mode) or not (stat.S_ISREG(inner.st_mode) or stat.S_ISDIR(inner.st_mode)):
                return f"{name} is neither a file nor a folder"
            if (reason := _distrust(inner)) and (entered or not inner.st_mode & OTHERS_WRITE):
                return f"{name}: {reason}"
    return ""


def folder_distrust(path: Path) -> str:
    """The same of a folder alone, without its contents; a link is followed."""
    found = os.stat(path)
    return _distrust(found) if stat.S_ISDIR(found.st_mode) else "it is no folder"


def _distrust(found: os.stat_result) -> str:
    if found.st_uid not in (0, os.geteuid()):
        return f"it belongs to another user (uid {found.st_uid})"
    return "other users can write it" if found.st_mode & OTHERS_WRITE else ""


def _raise(error: OSError) -> None:
    raise error


def own_folder(path: Path) -> None:
    """Make a folder that others cannot write; it may exist.

    Raises:
        PermissionError: it exists and is another user's.
    """
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    found = os.stat(path)
    if found.st_uid not in (0, os.geteuid()):
        raise PermissionError(errno.EACCES, f"the folder belongs to another user (uid {found.st_uid})", str(path))
    if found.st_mode & OTHERS_WRITE and found.st_uid == os.geteuid():
        os.chmod(path, stat.S_IMODE(found.st_mode) & ~OTHERS_WRITE)


def new_partial(entry: Path) -> Path:
    """A new folder in which `entry` can be built, with the permissions that the umask gives, but not writable by
    others."""
    path = entry.parent / f".{entry.name}.{secrets.token_hex(6)}"
    path.mkdir(mode=0o755)
    return path


def share(folder: Path) -> None:
    """Let others read all below `folder` if they can read the folder itself. Some libraries write private files."""
    mode = stat.S_IMODE(os.lstat(folder).st_mode) & 0o755
    for path in folder.rglob("*"):
        found = os.lstat(path).st_mode
        if stat.S_ISDIR(found) or (stat.S_ISREG(found) and found & stat.S_IXUSR):
            path.chmod(mode)
        elif stat.S_ISREG(found):
            path.chmod(mode & ~0o111)


def remove(path: Path) -> None:
    """Remove a file, link or folder, if it is there. A folder that cannot be emptied is renamed.

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
        aside = path.parent / f".{path.name.strip('.')}.{secrets.token_hex(6)}"
        os.rename(path, aside)
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive advisory lock on `path` during the block; waits for its turn. The file is created if it is
    missing, and replaced if it is something that cannot be opened."""
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
    """Remove entries below `root` whose builders were killed: the lock of such an entry is free."""
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
