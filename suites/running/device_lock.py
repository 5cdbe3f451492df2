"""The lock of a device. All users of a machine share it.

The lock is an advisory lock (flock(2)) on an empty file in /tmp, or in the folder of the environment variable
SUITES_LOCK_DIR. A run that measures takes the lock exclusively. Runs that build or judge outputs share it.

flock(2) grants a shared lock although another process waits for the exclusive lock. Without a queue, builds that start
before others end would keep a measurement waiting without end. So there is a second file, the turn. Each run holds the
turn exclusively while it waits for the lock, and releases it when it has the lock. A run that starts later waits for
the turn, and so for the run that waits for the lock. A process that holds the lock, and its children, must not take the
lock of the same device again: they would wait for a run that waits for them. Workers take no lock.

Every process must choose the same file, also if another user owns it. So the choice depends only on facts that all
users see. The candidates are `inference-suites-DEVICE.lock`, `inference-suites-DEVICE.1.lock`, and so on. The first
candidate that is missing, or is a regular file that everybody can read, is the lock. A folder, a FIFO, a symbolic link
or a private file is skipped. A missing file is created under a temporary name, made readable for everybody (whatever
the umask is), and then linked to its name. The turn is `inference-suites-DEVICE.turn.lock`, with the same rules. A user
can keep the lock and make others wait: nothing prevents that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from suites.schema.refusals import Refused

CANDIDATES = 10
"""Number of file names that are tried before the lock is refused."""

ATTEMPTS = 100
"""Number of attempts to open a lock while other processes remove or create its file."""

BRIEF_SECONDS = 0.05
"""Time before a second attempt to take a lock without waiting. A run that need not wait holds the turn for less."""


def lock_folder() -> Path:
    """Return SUITES_LOCK_DIR, or /tmp if it is not set. TMPDIR may differ between users, so it is not used.

    Raises:
        Refused: SUITES_LOCK_DIR is not a folder and cannot be created.
    """
    chosen = os.environ.get("SUITES_LOCK_DIR", "")
    if not chosen:
        return Path("/tmp") if os.path.isdir("/tmp") else Path(tempfile.gettempdir())
    folder = Path(chosen)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"SUITES_LOCK_DIR={chosen} cannot be created ({error.strerror}); give another folder") from None
    return folder


@contextlib.contextmanager
def lock_device(device: str, on_wait: Callable[[], None], shared: bool = False) -> Iterator[None]:
    """Hold the lock of a device during the block.

    Args:
        device: UUID of a GPU, or "cpu".
        on_wait: called once if another process holds the lock or waits for it.
        shared: whether others may hold the lock at the same time, if they share it too.

    Raises:
        Refused: no file can serve as the lock.
    """
    waited = False

    def wait() -> None:
        nonlocal waited
        if not waited:
            on_wait()
        waited = True

    turn = _take(f"{device}.turn", fcntl.LOCK_EX, wait)
    try:
        descriptor = _take(device, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait)
    finally:
        os.close(turn)
    try:
        yield
    finally:
        os.close(descriptor)


def _take(name: str, mode: int, wait: Callable[[], None]) -> int:
    """Lock the file of `name`, and return its descriptor. Closing it releases the lock.

    Args:
        mode: LOCK_SH or LOCK_EX.
        wait: called before this process waits.
    """
    for _ in range(ATTEMPTS):
        descriptor, path = _open(name)
        try:
            if not _locked_at_once(descriptor, mode):
                time.sleep(BRIEF_SECONDS)
                if not _locked_at_once(descriptor, mode):
                    wait()
                    fcntl.flock(descriptor, mode)
            if _same_file(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # a cleaner of temporary files removed the file, and others lock a new file
    raise _refusal("other processes keep replacing its file")


def _locked_at_once(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def claim_device(devices: Sequence[str], wait: Callable[[], None]) -> Iterator[str]:
    """Hold one of several devices during the block, and yield its name. Other claims of it wait.

    A claim is not the lock of `lock_device`, which the processes of a claimed device still take.

    Args:
        devices: UUIDs of GPUs, or other names.
        wait: called repeatedly while all devices are claimed. It returns after a short time.

    Raises:
        Refused: no file can serve as the lock.
    """
    while True:
        for device in devices:
            descriptor, path = _open(f"job-{device}")
            try:
                if _locked_at_once(descriptor, fcntl.LOCK_EX) and _same_file(descriptor, path):
                    yield device
                    return
            finally:
                os.close(descriptor)
        wait()


def _open(device: str) -> tuple[int, Path]:
    """Open the file that all users lock for `device`. Return its descriptor and its path."""
    folder, reason = lock_folder(), "all its file names are used by other files"
    for number in range(CANDIDATES):
        path = folder / f"inference-suites-{device}{f'.{number}' if number else ''}.lock"
        for _ in range(ATTEMPTS):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                try:
                    _create(path)
                except OSError as error:
                    raise _refusal(error.strerror or str(error)) from None
                continue
            except OSError as error:
                raise _refusal(error.strerror or str(error)) from None
            if not stat.S_ISREG(status.st_mode) or not status.st_mode & stat.S_IROTH:
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
    """Open for writing if possible, because some file systems need it for an exclusive lock; else for reading."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | flags)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return os.open(path, os.O_RDONLY | flags)


def _create(path: Path) -> None:
    """Create an empty file that everybody can open, unless another process created the file first."""
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
