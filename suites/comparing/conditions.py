"""Conditions of a measurement that affect times: device, driver, power limit, clock policy, version of the timing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from suites.records.record import Record
from suites.text import one_line


@dataclass(frozen=True, order=True)
class Difference:
    """A condition in which two records differ, with both values as text."""

    name: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.name}: {self.a} and {self.b}"


Read = Callable[[Record], object]


CONDITIONS: Mapping[str, Read] = {
    "GPU": lambda record: record.environment.gpu,
    "CPU": lambda record: record.environment.cpu,
    "CPU cores": lambda record: record.environment.cores,
    "CPU limit": lambda record: record.environment.cpu_quota,
    "driver": lambda record: record.environment.driver,
    "CUDA driver": lambda record: record.environment.cuda_driver,
    "power limit in W": lambda record: record.environment.power_limit_w,
    "clock policy (maximum SM clock in MHz)": lambda record: record.environment.max_sm_clock_mhz,
    "device": lambda record: record.environment.uuid or None,
    "version of the timing": lambda record: record.harness,
}
"""Conditions that must be equal, with the function that reads each. Two GPUs of the same name are two devices: their
clocks and temperatures differ."""

EFFORT = ("warm_up_s", "seconds", "min_samples")
"""Settings of the measurement that are named if they differ. They change the noise more than the times."""


def differences(a: Record, b: Record) -> list[Difference]:
    """Return the conditions in which two records differ, in the order of `CONDITIONS`."""
    pairs = ((name, read(a), read(b)) for name, read in CONDITIONS.items())
    return [Difference(name, _text(one), _text(other)) for name, one, other in pairs if one != other]


def effort_differences(a: Record, b: Record) -> list[Difference]:
    """Return the settings of the measurement in which two records differ."""
    pairs = ((f"suite.{name}", getattr(a.settings, name), getattr(b.settings, name)) for name in EFFORT)
    return [Difference(name, _text(one), _text(other)) for name, one, other in pairs if one != other]


def _text(value: object) -> str:
    if value is None:
        return "unknown"
    return one_line(f"{value:g}" if isinstance(value, float) else str(value), 60)
