"""Find and end processes by a variable of their environment, which child processes inherit."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def with_variable(name: str, value: str) -> set[int]:
    """Return the processes with this variable. A zombie process has no environment."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if f"{name}={value}\0".encode() in Path(f"/proc/{entry}/environ").read_bytes():
                    found.add(int(entry))
    return found


def running() -> dict[int, int]:
    """Return the parent of each process that is not a zombie."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            state, parent, *_ = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            if state != "Z":
                parents[int(entry)] = int(parent)
    return parents


def with_descendants(processes: set[int]) -> set[int]:
    """Return these processes and the running ones that they started, directly or through others."""
    parents, found = running(), set(processes)
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def kill(processes: set[int]) -> None:
    """Send SIGKILL to each process that still exists."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
