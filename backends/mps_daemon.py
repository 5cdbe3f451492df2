"""CUDA MPS: a daemon of this process alone, and the share of the threads of a GPU that this process may use.

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


@contextlib.contextmanager
def limited_process(share: float) -> Iterator[ComputeShare]:
    """Start a daemon, and limit this process to a share of the threads of each GPU.

    CUDA must start in this context. The number of SMs is not known.

    Raises:
        Unavailable: there is no daemon to start, it does not start, or it did not serve this process.
    """
    path = shutil.which(TOOL)
    if path is None:
        raise Unavailable(f"{TOOL} is not installed; install it with the NVIDIA driver, or use limits.method=green")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mps_", ignore_cleanup_errors=True))
        for name, value in {PIPES: folder, LOGS: folder, PERCENTAGE: f"{100 * share:g}"}.items():
            stack.enter_context(_variable(name, value))
        _start(path, Path(folder))
        yield ComputeShare(0, 0)
        if not _has_server(path):
            raise Unavailable("the MPS daemon started no server for this process; use limits.method=green")


def _start(path: str, folder: Path) -> None:
    """Start the daemon. The launcher of this worker ends it later: this process is a client until its own end.

    Raises:
        Unavailable: it did not start; the message has the last line of its output.
    """
    output = folder / "output"
    with output.open("wb") as file:  # the daemon keeps it open, as it would a pipe
        done = subprocess.run([path, "-d"], stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False)
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
