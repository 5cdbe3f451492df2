"""Memory that a process of this machine can still allocate. Needs the standard library alone."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Return the free bytes of the machine, or fewer if the cgroup (version 2) allows fewer; None if unknown."""
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB$", MEMINFO.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        match = None
    if match is None:
        return None
    free = int(match[1]) << 10
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or "max"
        most, used = (int((CGROUP / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        free = min(free, max(0, most - used))
    return free
