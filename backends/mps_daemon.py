"""CUDA MPS: a daemon of this process and its children, and the share of the threads of a GPU that a process may use.

Without a daemon, CUDA ignores the limit. So the daemon must have a server after the work, or the figures do not count.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from backends.base import Unavailable
from backends.compute_share import ComputeShare

TOOL = "nvidia-cuda-mps-control"

PERCENTAGE, PIPES, LOGS = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"

STARTED = "SUITES_MPS_DAEMON"
"""Variable with the folder of the daemon that this process or its parent has started."""

LONGEST_FOLDER = 64
"""Most characters of the folder. The daemon makes sockets in it, whose paths have at most 107 bytes."""


@contextlib.contextmanager
def limited_process(share: float | None) -> Iterator[ComputeShare]:
    """Limit this process to a share of the threads of each GPU. Start a daemon if the parent has started none.

    CUDA must start in this context. The number of SMs is not known.

    Args:
        share: None to limit only child processes, each of which sets its own share.

    Raises:
        Unavailable: there is no daemon to start, it does not start, or it did not serve this process.
    """
    path = shutil.which(TOOL)
    if path is None:
        raise Unavailable(f"{TOOL} is not installed; install it with the NVIDIA driver, or use limits.method=green")
    with contextlib.ExitStack() as stack:
        if STARTED not in os.environ:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="mps_", dir=_parent_folder(), ignore_cleanup_errors=True)
            )
            for name in (PIPES, LOGS, STARTED):
                stack.enter_context(_variable(name, folder))
            _start(path, Path(folder))
        if share is not None:
            stack.enter_context(_variable(PERCENTAGE, f"{100 * share:g}"))
        yield ComputeShare(0, 0)
        if not _has_server(path):
            raise Unavailable("the MPS daemon started no server for this process; use limits.method=green")


def _parent_folder() -> str | None:
    """Return a parent for the folder of the daemon if the one of this process has a long path; else None."""
    return "/tmp" if len(tempfile.gettempdir()) > LONGEST_FOLDER else None


def _start(path: str, folder: Path) -> None:
    """Start the daemon. The launcher of this worker ends it later: this process is a client until its own end.

    Raises:
        Unavailable: it did not start; the message has the last line of its output.
    """
    output = folder / "output"
    # A percentage of the daemon would be the largest one of its clients.
    environment = {name: value for name, value in os.environ.items() if name != PERCENTAGE}
    with output.open("wb") as file:  # the daemon keeps it open, as it would a pipe
        done = subprocess.run(
            [path, "-d"], env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False
        )
    if done.returncode:
        lines = output.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), f"status {done.returncode}")
        raise Unavailable(f"the MPS daemon could not be started: {last}; use limits.method=green")


def _has_server(path: str) -> bool:
    """Return whether the daemon has started a server, as it does for its first client."""
    done = subprocess.run([path], input="get_server_list\n", capture_output=True, encoding="utf-8", check=False)
    return done.returncode == 0 and bool(done.stdout.strip())


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment of this process, which libraries and child processes see."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
