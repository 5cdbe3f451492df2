"""CPU load during a measurement, by this process and by others, read from /proc.

Uses only the standard library. The kernel counts CPU time in ticks of usually 10 ms, so the load over a short time is
inaccurate. `cpu_resolution` gives the error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backends.json_part import Part
from suites.measuring.clock import cpu_time_ns, now_ns

PROC = Path("/proc")

BUSY = (0, 1, 2, 5, 6, 7)
"""Fields of a line of /proc/stat that count as busy: user, nice, system, irq, softirq and steal (proc(5))."""

STEAL = 7

OTHERS_ALLOWED = 0.05
"""Largest share of the CPU time that other processes may take. Above it, times on the CPU are not reliable."""

USED = 0.1
"""A thread counts as used if it is busy for at least this share of the time."""


@dataclass(frozen=True)
class CpuLoad(Part):
    """CPU load between two readings.

    Attributes:
        cpu_others: share of the CPU time (of all CPUs that this process may use) that other processes took, including
            stolen time.
        cpu_steal: the stolen part.
        cpu_resolution: largest error of the shares caused by the ticks.
        threads_used: number of threads of this process that were busy for a tenth of the time or more.
    """

    cpu_others: float = 0.0
    cpu_steal: float = 0.0
    cpu_resolution: float = 0.0
    threads_used: int = 0


def is_disturbed(others: float, resolution: float) -> bool:
    """Return whether other processes took more of the CPU time than is allowed, by more than the error of the share."""
    return others - resolution > OTHERS_ALLOWED


@dataclass(frozen=True)
class CpuReading:
    """Counters of CPU time at one moment, in seconds.

    Attributes:
        at: time on the clock of suites/measuring/clock.py.
        busy: CPU time of all processes on the CPUs that this process may use, including stolen time.
        steal: time that the hypervisor gave to other virtual machines; a part of `busy`.
        own: CPU time of this process and of its launcher.
        threads: CPU time of each thread of this process, by id.
    """

    at: float
    busy: float
    steal: float
    own: float
    threads: Mapping[int, float] = field(default_factory=dict)


def read_cpu(proc: Path = PROC) -> CpuReading | None:
    """Read the counters; None if the system does not have them."""
    tick = 1 / os.sysconf("SC_CLK_TCK")
    try:
        lines = (proc / "stat").read_text(encoding="ascii").splitlines()
        own_cpus = {f"cpu{index}" for index in os.sched_getaffinity(0)}
        cpu_counters = [
            [int(word) for word in line.split()[1:]] for line in lines if line.partition(" ")[0] in own_cpus
        ]
        launcher = _of_process(proc / str(os.getppid()) / "stat") * tick
        threads = {int(path.name): _of_process(path / "stat") * tick for path in (proc / "self" / "task").iterdir()}
    except (OSError, ValueError, IndexError):
        return None
    if not cpu_counters:
        return None
    busy = sum(sum(fields[index] for index in BUSY if index < len(fields)) for fields in cpu_counters) * tick
    steal = sum(fields[STEAL] if len(fields) > STEAL else 0 for fields in cpu_counters) * tick
    return CpuReading(now_ns() / 1e9, busy, steal, cpu_time_ns() / 1e9 + launcher, threads)


def cpu_load(before: CpuReading | None, after: CpuReading | None, cpus: int | None = None) -> CpuLoad | None:
    """Return the CPU load between two readings; None if a reading is missing or no time passed."""
    if before is None or after is None or after.at <= before.at:
        return None
    capacity = (after.at - before.at) * (cpus or len(os.sched_getaffinity(0)))
    others = after.busy - before.busy - (after.own - before.own)
    least = USED * (after.at - before.at)
    used = sum(spent - before.threads.get(thread, 0.0) >= least for thread, spent in after.threads.items())
    return CpuLoad(
        cpu_others=round(min(max(others / capacity, 0.0), 1.0), 4),
        cpu_steal=round(min(max((after.steal - before.steal) / capacity, 0.0), 1.0), 4),
        cpu_resolution=round(2 / os.sysconf("SC_CLK_TCK") / capacity, 4),
        threads_used=used,
    )


def _of_process(stat: Path) -> int:
    """Return user plus system time in ticks: fields 14 and 15 of a stat file. The process name may contain spaces."""
    fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
