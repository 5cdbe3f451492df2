"""A pytest plugin that reports CPU time. Wall time means little on a machine that runs other processes.

`--cpu-durations=N` prints the N tests that used the most CPU seconds, child processes included, and the total per
file. The time of a fixture counts for the first test that needs the fixture.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its child processes that ended and were waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class CpuDurations:
    """CPU seconds of each phase of a test, measured in the process that runs it. The report carries them to the
    terminal."""

    def __init__(self, shown: int) -> None:
        self.shown = shown
        self.start = _cpu_seconds()
        self.tests: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        report: Any = yield
        now = _cpu_seconds()
        report.cpu_seconds, self.start = now - self.start, now
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.tests[report.nodeid] += getattr(report, "cpu_seconds", 0.0)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        files: Counter[str] = Counter()
        for name, seconds in self.tests.items():
            files[name.split("::")[0]] += seconds
        terminalreporter.section("CPU seconds, child processes included")
        for name, seconds in [*self.tests.most_common(self.shown), *files.most_common()]:
            terminalreporter.write_line(f"{seconds:8.2f} {name}")
        terminalreporter.write_line(f"{files.total():8.2f} in all")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu-durations", type=int, metavar="N", help="print the N tests that used the most CPU seconds")


def pytest_configure(config: pytest.Config) -> None:
    shown = config.getoption("--cpu-durations")
    if shown is not None:
        config.pluginmanager.register(CpuDurations(shown), "cpu-durations-report")
