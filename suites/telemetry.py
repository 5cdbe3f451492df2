"""What a GPU says of itself while a worker measures: sampled by the parent through NVML, laid over the windows."""

from __future__ import annotations

import bisect
import statistics
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from suites.clock import now_ns
from suites.machine import ask
from suites.record import SUSTAINED, Measurement

REASONS = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of nvmlDeviceGetCurrentClocksEventReasons that slow a busy GPU down (NVML API reference); idle, application
clocks and display settings are not throttling."""

SHORTEST_ENERGY_SECONDS = 0.4
"""NVML's energy counter advances in steps of tens of milliseconds; over less than this it says little."""


@dataclass(frozen=True)
class Reading:
    """One look at the device: when it began and ended in ns, clocks in MHz, power in W, energy counter in mJ, memory in
    bytes, and how many processes compute on it."""

    at: int
    sm_clock: int
    memory_clock: int
    power: float
    temperature: int
    reasons: int
    energy: int
    memory: int
    processes: int
    until: int = 0


@dataclass
class Telemetry:
    """Samples one GPU in a thread for as long as the `with` block lasts; on a CPU it samples nothing."""

    uuid: str
    period_s: float = 0.02
    readings: list[Reading] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Telemetry:
        if self.uuid:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(self.uuid)
            self.readings.append(_read(handle))
            self._thread = threading.Thread(target=self._sample, args=(handle,), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            import pynvml

            self._stop.set()
            self._thread.join()
            pynvml.nvmlShutdown()

    def _sample(self, handle: Any) -> None:
        while not self._stop.wait(self.period_s):
            self.readings.append(_read(handle))


def _read(handle: Any) -> Reading:
    import pynvml

    return Reading(
        at=now_ns(),
        sm_clock=ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        memory_clock=ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        power=ask(pynvml.nvmlDeviceGetPowerUsage, handle) / 1000,
        temperature=ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        reasons=ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle),
        energy=ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle),
        memory=int(pynvml.nvmlDeviceGetMemoryInfo(handle).used),
        processes=len(ask(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()),
        until=now_ns(),
    )


def annotate(measurement: Measurement, readings: Sequence[Reading]) -> Measurement:
    """The measurement with the readings taken during its windows; unchanged if there are none.

    `memory_bytes` is what was in use beyond the first reading, which was taken before the worker began.
    """
    if not readings or not measurement.windows:
        return measurement
    first, last = measurement.windows[0][0], measurement.windows[-1][1]
    during = _between(readings, first, last)
    if not during:
        return measurement
    throttled = tuple(any(_throttles(r) for r in _between(readings, a, b)) for a, b, _ in measurement.windows)
    bits = [reading.reasons for reading in during]
    telemetry = {
        "sm_clock_mhz": statistics.median(r.sm_clock for r in during),
        "memory_clock_mhz": statistics.median(r.memory_clock for r in during),
        "power_w": round(statistics.fmean(r.power for r in during), 1),
        "temperature_c": max(r.temperature for r in during),
        "throttle_reasons": [name for bit, name in REASONS.items() if any(b & bit for b in bits)],
        "memory_bytes": max(r.memory for r in during) - readings[0].memory,
        # One is the worker, by whatever number the driver knows it.
        "other_processes": max(0, max(r.processes for r in during) - 1),
        "readings": len(during),
    }
    if measurement.phase == SUSTAINED and last - first >= SHORTEST_ENERGY_SECONDS * 1e9:
        energy = _energy_at(readings, last) - _energy_at(readings, first)
        sequences = sum(count for _, _, count in measurement.windows) * measurement.batch
        telemetry["energy_mj_per_sequence"] = energy / sequences
    # A zero is what a GPU that does not report a figure leaves; an empty list of reasons says something.
    known = {name: value for name, value in telemetry.items() if value != 0}
    return replace(measurement, throttled=throttled, telemetry={**measurement.telemetry, **known})


def _throttles(reading: Reading) -> bool:
    return any(reading.reasons & bit for bit in REASONS)


def _between(readings: Sequence[Reading], start: int, end: int) -> Sequence[Reading]:
    """Readings begun and ended in [start, end]: what comes after a window may take memory of its own."""
    low = bisect.bisect_left(readings, start, key=lambda r: r.at)
    high = bisect.bisect_right(readings, end, key=lambda r: max(r.at, r.until))
    return readings[low:high]


def _energy_at(readings: Sequence[Reading], at: int) -> float:
    """The energy counter in mJ at a moment, on a straight line between the two readings around it."""
    index = min(max(bisect.bisect_left(readings, at, key=lambda r: r.at), 1), len(readings) - 1)
    before, after = readings[index - 1], readings[index]
    share = (at - before.at) / max(after.at - before.at, 1)
    return before.energy + min(max(share, 0.0), 1.0) * (after.energy - before.energy)
