"""The lock of a device, which all users of a machine share.

The lock of a device is an advisory lock (flock(2)) on an empty file in /tmp, or in the folder that the environment
variable SUITES_LOCK_DIR names. A run that measures takes it exclusively. Runs that build or judge outputs share it.

Every process must choose the same file, whoever owns it. So the rule reads facts that all users see: the first of
`inference-suites-DEVICE.lock`, `inference-suites-DEVICE.1.lock`, ... that is missing, or that is a regular file which
everybody can read. A folder, a FIFO, a symbolic link or a private file is skipped by all users alike. A missing file
is created under a temporary name, made readable for everybody whatever the umask is, and then linked to its name.
A user who holds the lock keeps others waiting: that is the purpose of the lock, and nobody is protected against it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from suites.checks import Refused

CANDIDATES = 10
"""How many names are tried before the lock is refused."""

ATTEMPTS = 100
"""How often a lock is opened again because another process removed or created its file meanwhile."""


def lock_folder() -> Path:
    """SUITES_LOCK_DIR, or else /tmp: TMPDIR may differ between the users of one machine.

    Raises:
        Refused: SUITES_LOCK_DIR is no folder and cannot be created.
    """
    chosen = os.environ.get("SUITES_LOCK_DIR", "")
    if not chosen:
        return Path("/tmp") if os.path.isdir("/tmp") else Path(tempfile.gettempdir())
    folder = Path(chosen)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"SUITES_LOCK_DIR={chosen} cannot be created ({error.strerror}); name another folder") from None
    return folder


@contextlib.contextmanager
def holding(device: str, on_wait: Callable[[], None], shared: bool = False) -> Iterator[None]:
    """Hold the lock of a device during the block.

    Args:
        device: UUID of a GPU, or "cpu".
        on_wait: called once if another process holds the lock.
        shared: whether other shared holders may run at the same time.

    Raises:
        Refused: there is no file that can serve as the lock.
    """
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    waited = False
    for _ in range(ATTEMPTS):
        descriptor, path = _open(device)
        try:
            try:
                fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    on_wait()
                waited = True
                fcntl.flock(descriptor, mode)
            if not _same_file(descriptor, path):
                continue  # a cleaner of temporary files removed it, and others lock a new one
            yield
            return
        finally:
            os.close(descriptor)
    raise _refusal("its file is replaced again and again")


def _open(device: str) -> tuple[int, Path]:
    """A descriptor of the file that all users lock for `device`, and its path."""
    folder, reason = lock_folder(), "no name for it is free"
    for number in range(CANDIDATES):
        path = folder / f"inference-suites-{device}{f'.{number}' if number else ''}.lock"
        for _ in range(ATTEMPTS):
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                try:
                    _create(path)
                except OSError as error:
                    raise _refusal(error.strerror or str(error)) from None
                continue
            except OSError as error:
                raise _refusal(error.strerror or str(error)) from None
            if not stat.S_ISREG(found.st_mode) or not found.st_mode & stat.S_IROTH:
                break
            try:
                return _open_existing(path), path
            except FileNotFoundError:
                continue
            except OSError as error:
                reason = error.strerror or str(error)
                break
    raise _refusal(reason)


def _open_existing(path: Path) -> int:
    """Open for writing if possible, for some file systems want that for an exclusive lock; else for reading."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | flags)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return os.open(path, os.O_RDONLY | flags)


def _create(path: Path) -> None:
    """Create an empty file that everybody can open, or leave the one that another process created first."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        os.fchmod(descriptor, 0o666)
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.close(descriptor)
        os.unlink(name)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


def _refusal(reason: str) -> Refused:
    return Refused(
        f"the lock of the device cannot be opened in {lock_folder()} ({reason}); "
        "set SUITES_LOCK_DIR to a folder that all users of this machine can write"
    )
