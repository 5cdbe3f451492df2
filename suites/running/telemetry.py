"""GPU telemetry during a measurement.

The parent process samples it through NVML and assigns it to the measurement windows.
"""

from __future__ import annotations

import bisect
import statistics
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType

from suites.measuring.clock import now_ns
from suites.measuring.machine import nvml_query
from suites.records.measurement import POWER_CAP, SUSTAINED, Measurement

REASONS = {
    0x04: POWER_CAP,
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of nvmlDeviceGetCurrentClocksEventReasons that mean throttling (NVML API reference). The bits for an idle GPU,
application clocks and display settings are not included."""

SHORTEST_ENERGY_SECONDS = 0.4
"""Shortest measurement with a figure of energy, in seconds. NVML's energy counter advances in steps of tens of
milliseconds, so it is inaccurate over shorter times."""


BUSY_PERIOD_NS = 500_000_000
"""Time after a change of the load at which the driver's busy share is that of the new load, on most GPUs."""


@dataclass(frozen=True)
class Reading:
    """One sample of the device's state.

    Attributes:
        at, until: begin and end of the reading in ns, on the clock of suites/measuring/clock.py.
        sm_clock, memory_clock: in MHz.
        power: in W.
        temperature: in degrees C.
        reasons: bits of nvmlDeviceGetCurrentClocksEventReasons.
        energy: energy counter in mJ.
        memory: memory in use in bytes.
        processes: number of processes that compute on the device.
        busy: percentage of the driver's last sampling period, of 1/6 s to 1 s, in which a kernel ran.
    """

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
    busy: int = 0


@dataclass
class TelemetrySampler:
    """Sampler of one GPU. It runs in a thread during the `with` block; without a `uuid`, on a CPU, it does nothing."""

    uuid: str
    period_s: float = 0.02
    readings: list[Reading] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> TelemetrySampler:
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

    def _sample(self, handle: object) -> None:
        while not self._stop.wait(self.period_s):
            self.readings.append(_read(handle))


def _read(handle: object) -> Reading:
    import pynvml

    processes = nvml_query(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
    return Reading(
        at=now_ns(),
        sm_clock=nvml_query(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        memory_clock=nvml_query(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        power=nvml_query(pynvml.nvmlDeviceGetPowerUsage, handle) / 1000,
        temperature=nvml_query(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        reasons=nvml_query(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle),
        energy=nvml_query(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle),
        memory=int(pynvml.nvmlDeviceGetMemoryInfo(handle).used),
        processes=0 if not processes or isinstance(processes, int) else len(processes),
        busy=_busy(handle),
        until=now_ns(),
    )


def _busy(handle: object) -> int:
    import pynvml

    rates = nvml_query(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return 0 if isinstance(rates, int) else int(rates.gpu)


@dataclass(frozen=True)
class GpuReadings:
    """Readings of a measuring process; see DeviceReadings in suites/suite.py."""

    readings: Sequence[Reading]

    def energy_mj(self, start: int, end: int) -> float | None:
        if len(self.readings) < 2 or end - start < SHORTEST_ENERGY_SECONDS * 1e9:
            return None
        return (_energy_at(self.readings, end) - _energy_at(self.readings, start)) or None

    def busy_share(self, start: int, end: int) -> float | None:
        """Readings of the first part of the time are about the time before it, so they do not count."""
        during = _between(self.readings, start + BUSY_PERIOD_NS, end)
        return statistics.fmean(reading.busy for reading in during) / 100 if during else None


def annotate(measurement: Measurement, readings: Sequence[Reading]) -> Measurement:
    """Return the measurement with the telemetry of its windows; unchanged if there are no readings.

    `memory_bytes` is the largest memory in use minus that of the first reading, which precedes the worker's start.
    """
    if not readings or not measurement.windows:
        return measurement
    first, last = measurement.windows[0][0], measurement.windows[-1][1]
    during = _between(readings, first, last)
    if not during:
        return measurement
    throttled = tuple(any(_throttles(r) for r in _between(readings, a, b)) for a, b, _ in measurement.windows)
    bits = [reading.reasons for reading in during]
    energy: float | None = None
    if measurement.phase == SUSTAINED and last - first >= SHORTEST_ENERGY_SECONDS * 1e9:
        sequences = sum(count for _, _, count in measurement.windows) * measurement.batch
        energy = (_energy_at(readings, last) - _energy_at(readings, first)) / sequences
    # A GPU that does not report a figure gives 0. An empty tuple of reasons is kept: it means no throttling.
    telemetry = replace(
        measurement.telemetry,
        sm_clock_mhz=statistics.median(r.sm_clock for r in during) or None,
        memory_clock_mhz=statistics.median(r.memory_clock for r in during) or None,
        power_w=round(statistics.fmean(r.power for r in during), 1) or None,
        temperature_c=max(r.temperature for r in during) or None,
        throttle_reasons=tuple(name for bit, name in REASONS.items() if any(b & bit for b in bits)),
        memory_bytes=max(r.memory for r in during) - readings[0].memory or None,
        # One of them is the worker. Its process id is not compared: the driver may report another number.
        other_processes=max(0, max(r.processes for r in during) - 1) or None,
        readings=len(during),
        energy_mj_per_sequence=energy or None,
    )
    return replace(measurement, throttled=throttled, telemetry=telemetry)


def _throttles(reading: Reading) -> bool:
    return any(reading.reasons & bit for bit in REASONS)


def _between(readings: Sequence[Reading], start: int, end: int) -> Sequence[Reading]:
    """Return the readings that began and ended in [start, end]: memory may be allocated after a window."""
    low = bisect.bisect_left(readings, start, key=lambda r: r.at)
    high = bisect.bisect_right(readings, end, key=lambda r: max(r.at, r.until))
    return readings[low:high]


def _energy_at(readings: Sequence[Reading], at: int) -> float:
    """Return the energy counter in mJ at a moment in ns, by linear interpolation between two readings."""
    index = min(max(bisect.bisect_left(readings, at, key=lambda r: r.at), 1), len(readings) - 1)
    before, after = readings[index - 1], readings[index]
    share = (at - before.at) / max(after.at - before.at, 1)
    return before.energy + min(max(share, 0.0), 1.0) * (after.energy - before.energy)
