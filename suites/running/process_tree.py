"""End a process together with all its descendants.

A worker runs in its own session and process group. Its environment has a unique mark in SUITES_CALL. Its children
inherit the mark, so children that left the process group are found in /proc.

A guard ends workers if their launcher died without ending them, for example by SIGKILL. The guard is a small process
that waits until the other end of a pipe is closed. The kernel closes it when the launcher ends, also if it is killed.
Run as a script (`python process_tree.py DESCRIPTOR MARK [COMMAND ...]`), this file is the guard.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

CALL = "SUITES_CALL"
ROUNDS = 20
"""Number of searches for processes. Processes may start others before they are ended, so one search is not enough."""

PR_SET_PDEATHSIG = 1

COMMAND_SECONDS = 60


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send signal `number` to this process when the thread that started it ends (prctl(2), Linux).

    Raises:
        SystemExit: the parent has already ended.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    try:
        os.kill(parent, 0)
    except PermissionError:
        pass
    except ProcessLookupError:
        sys.exit(128 + number)


def kill_group(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group, if it exists."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def kill_marked(mark: str) -> None:
    """Send SIGKILL to every process whose SUITES_CALL is `mark` or begins with `mark` and a dash."""
    for _ in range(ROUNDS):
        processes = _marked(mark)
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if not processes:
            return


def _marked(mark: str) -> list[int]:
    entries = (f"{CALL}={mark}\0".encode(), f"{CALL}={mark}-".encode())
    marked = []
    try:
        processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for process in processes:
        try:
            with open(f"/proc/{process}/environ", "rb") as stream:
                environment = stream.read()
        except OSError:
            continue
        # A zombie process has an empty environment.
        if process != os.getpid() and any(text in environment for text in entries):
            marked.append(process)
    return marked


class Guard:
    """Guard process that ends the workers of this process if this process dies. All workers share one guard."""

    _lock = threading.Lock()
    _pipe: int | None = None
    _process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls) -> str:
        """Start the guard if it does not run. Return its mark; SUITES_CALL of each worker begins with the mark."""
        mark = f"{os.getpid()}.{_start_time()}"
        with cls._lock:
            if cls._process is None or cls._process.poll() is not None:
                if cls._pipe is not None:
                    os.close(cls._pipe)
                cls._process, cls._pipe = _start_guard(mark, ())
        return mark


class Watcher:
    """Guard process of one mark. It ends the processes with the mark when `end` is called or this process dies.

    Args:
        mark: value of SUITES_CALL.
        command: command that the guard runs afterwards, for jobs that are not processes of this host.
    """

    def __init__(self, mark: str, command: Sequence[str]) -> None:
        self._process, self._pipe = _start_guard(mark, command)

    def end(self) -> None:
        """End the processes, and wait until they have ended."""
        os.close(self._pipe)
        self._process.wait()


def _start_guard(mark: str, command: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start a guard process. Return it, and the descriptor whose closing ends the processes with the mark."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(reader), mark, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=_without_call(os.environ),
        pass_fds=(reader,),
        start_new_session=True,
    )
    os.close(reader)
    return process, writer


def _without_call(environment: Mapping[str, str]) -> dict[str, str]:
    """Remove SUITES_CALL: a worker may start runs, and the guard of such a run must not be ended with the worker."""
    return {name: value for name, value in environment.items() if name != CALL}


def _start_time() -> str:
    """Return the start of this process in clock ticks since boot (proc(5), field 22); unique with the process id."""
    try:
        with open("/proc/self/stat", "rb") as stream:
            return stream.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return "0"


def _watch(descriptor: int, mark: str, command: Sequence[str]) -> None:
    """Wait until the launcher has ended, then end its remaining workers and run a command."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(descriptor, 1):
        pass
    kill_marked(mark)
    if command:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, check=False, timeout=COMMAND_SECONDS)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
