"""CPU load of other processes, read from a fake /proc and from a real busy process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from suites.measuring import cpu_load
from suites.measuring.cpu_load import CpuReading, read_cpu
from suites.measuring.machine import cpu_quota


def reading(at: float, busy: float, own: float, steal: float = 0.0, **threads: float) -> CpuReading:
    return CpuReading(at, busy, steal, own, {int(name[1:]): spent for name, spent in threads.items()})


def test_load_is_a_share_of_all_cpus_without_the_suites_own_work() -> None:
    before = reading(10.0, 100.0, 5.0, 1.0, t1=4.0, t2=1.0)
    after = reading(12.0, 103.0, 7.0, 1.2, t1=5.9, t2=1.05, t3=0.2)
    load = cpu_load.cpu_load(before, after, cpus=2)
    assert load is not None
    assert load.cpu_others == pytest.approx(0.25)
    assert load.cpu_steal == pytest.approx(0.05)
    assert load.threads_used == 2
    assert 0 < load.cpu_resolution < 0.05


@pytest.mark.parametrize("after", [None, reading(10.0, 0.0, 0.0)])
def test_no_load_is_reported_without_two_readings_at_different_times(after: CpuReading | None) -> None:
    assert cpu_load.cpu_load(reading(10.0, 0.0, 0.0), after) is None


def test_only_cpus_of_this_process_are_counted(tmp_path: Path) -> None:
    mine = min(os.sched_getaffinity(0))
    other = max(os.sched_getaffinity(0)) + 1
    lines = ["cpu  0 0 0 0", f"cpu{mine} 100 200 300 400 500 600 700 800 0 0", f"cpu{other} 9 9 9 9 9 9 9 9 0 0"]
    (tmp_path / "stat").write_text("\n".join(lines) + "\n")
    launcher = tmp_path / str(os.getppid())
    launcher.mkdir()
    stat = "1 (a name (with) brackets) R" + " 0" * 10 + " 150 50 0\n"
    (launcher / "stat").write_text(stat)
    task = tmp_path / "self" / "task" / "7"
    task.mkdir(parents=True)
    (task / "stat").write_text(stat)
    counters = read_cpu(tmp_path)
    assert counters is not None
    tick = os.sysconf("SC_CLK_TCK")
    assert counters.busy == pytest.approx((100 + 200 + 300 + 600 + 700 + 800) / tick)
    assert counters.steal == pytest.approx(800 / tick)
    assert counters.threads == {7: 200 / tick}


def test_a_system_without_counters_gives_no_reading(tmp_path: Path) -> None:
    assert read_cpu(tmp_path) is None


def test_a_busy_process_counts_as_load_of_others() -> None:
    """The expected load is the CPU time of the busy process, so other work on the machine has no influence."""
    ticks = os.sysconf("SC_CLK_TCK")
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            stat = Path(f"/proc/{busy.pid}/stat")
            spent = lambda: sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))  # noqa: E731
            while spent() < 5:
                pass
            before, began = read_cpu(), spent()
            while spent() < began + 20:
                pass
            after, ended = read_cpu(), spent()
        finally:
            busy.kill()
    assert before is not None
    assert after is not None
    others = after.busy - before.busy - (after.own - before.own)
    assert others >= (ended - began) / ticks * 0.8


@pytest.mark.parametrize(
    ("files", "own", "quota"),
    [
        ({"cpu.max": "max 100000"}, "0::/", float("inf")),
        ({"cpu.max": "150000 100000"}, "0::/", 1.5),
        ({"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b", 2.0),
        ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "50000 100000"}, "0::/a/b", 0.5),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000"}, "3:cpu,cpuacct:/", 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu:/", float("inf")),
        ({"cpu.max": "nonsense"}, "0::/", float("inf")),
    ],
)
def test_the_cpu_limit_of_a_cgroup_is_read(files: dict[str, str], own: str, quota: float, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text + "\n")
    (tmp_path / "cgroup").write_text(own + "\n")
    assert cpu_quota(tmp_path / "fs", tmp_path / "cgroup") == quota
    assert cpu_quota(tmp_path / "fs", tmp_path / "absent") == float("inf")
