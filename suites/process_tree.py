"""End processes together with all that they started.

A worker runs in a session and process group of its own. Its environment holds SUITES_CALL, a text that occurs once,
which its children inherit: so children that left the process group are found in /proc as well.

A guard ends workers whose launcher died without ending them, for example by SIGKILL. It is a small process that waits
for the other end of a pipe to be closed: the kernel closes it when the launcher ends, however it ends. Run as a script
(`python process_tree.py DESCRIPTOR`), this file is the guard.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping

CALL = "SUITES_CALL"
ROUNDS = 20
"""How often processes are searched for, because those that are ended may start others meanwhile."""

PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send `number` to this process when the thread that started it ends (prctl(2), Linux).

    Raises:
        SystemExit: the parent ended before.
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
    """Signal a process group, if it is there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def kill_marked(mark: str) -> None:
    """SIGKILL every process whose environment has SUITES_CALL=`mark`, or a value that begins with it and a dash."""
    for _ in range(ROUNDS):
        found = _marked(mark)
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if not found:
            return


def _marked(mark: str) -> list[int]:
    wanted = (f"{CALL}={mark}\0".encode(), f"{CALL}={mark}-".encode())
    found = []
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
        # A process that ended and was not waited for has an empty environment.
        if process != os.getpid() and any(text in environment for text in wanted):
            found.append(process)
    return found


class Guard:
    """Ends what this process started if this process ends without doing so. One guard serves all its workers."""

    _lock = threading.Lock()
    _pipe: int | None = None
    _process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls) -> str:
        """Start the guard if it does not run; returns the first part of SUITES_CALL for what it ends."""
        mark = f"{os.getpid()}.{_start_time()}"
        with cls._lock:
            if cls._process is None or cls._process.poll() is not None:
                if cls._pipe is not None:
                    os.close(cls._pipe)
                reader, cls._pipe = os.pipe()
                cls._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", __file__, str(reader), mark],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=_without_call(os.environ),
                    pass_fds=(reader,),
                    start_new_session=True,
                )
                os.close(reader)
        return mark


def _without_call(environment: Mapping[str, str]) -> dict[str, str]:
    """A worker may start runs itself, in tests for example: their guard must not count as a child to be ended."""
    return {name: value for name, value in environment.items() if name != CALL}


def _start_time() -> str:
    """Start of this process in clock ticks since boot: with the process id it occurs once (proc(5), field 22)."""
    try:
        with open("/proc/self/stat", "rb") as stream:
            return stream.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return "0"


def _watch(descriptor: int, mark: str) -> None:
    """Wait until the launcher has ended, then end all that it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(descriptor, 1):
        pass
    kill_marked(mark)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), sys.argv[2])
