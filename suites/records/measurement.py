"""Raw samples of a measurement, and the state of the device while they were taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from backends.json_part import Part, optional
from suites.measuring.cpu_load import CpuLoad

GPU, ENQUEUE, LATENCY, END_TO_END, SUSTAINED = "gpu", "enqueue", "latency", "end_to_end", "sustained"
REPLAY = "replay"
PACKING, COPY_IN, REQUEST_ENQUEUE, COMPUTE, COPY_OUT = REQUEST_PARTS = (
    "request packing", "request copy in", "request enqueue", "request compute", "request copy out",
)  # fmt: skip
"""Phases of a measurement:

- `gpu`: device time of a step, by events;
- `enqueue`: host time of enqueueing a step on an idle device;
- `latency`: host time of a step until it is done, with the inputs on the device;
- `end_to_end`: host time of a request, from token ids in host memory to the answer in host memory, without waits
  between its parts;
- `REQUEST_PARTS`: host time of each part of a request, with a wait after each part (time_request_parts in
  suites/measuring/request_clock.py);
- `sustained`: host time per step, back to back without events between the steps;
- `replay`: host time of a request in a trace of suite=switching.
"""
POWER_CAP = "software power cap"
"""Reason for lower clocks at the power limit of a GPU, in `Telemetry.throttle_reasons`."""


@dataclass(frozen=True)
class Telemetry(Part):
    """Readings of the device during the windows of a measurement. A figure that the device does not report is None.

    Attributes:
        sm_clock_mhz, memory_clock_mhz: medians in MHz.
        power_w: mean in W.
        temperature_c: largest in degrees C.
        throttle_reasons: names of the reasons; empty if the GPU was not throttled, None if it was not read.
        memory_bytes: largest memory in use, without that of other processes.
        other_processes: number of other processes that computed on the device.
        readings: number of readings.
        energy_mj_per_sequence: energy in mJ.
        cpu: load of the CPU; None if it is not known.
    """

    json_flat: ClassVar[Mapping[str, type[Part]]] = {"cpu": CpuLoad}

    sm_clock_mhz: float | None = optional(None)
    memory_clock_mhz: float | None = optional(None)
    power_w: float | None = optional(None)
    temperature_c: float | None = optional(None)
    throttle_reasons: tuple[str, ...] | None = optional(None)
    memory_bytes: float | None = optional(None)
    other_processes: int | None = optional(None)
    readings: int | None = optional(None)
    energy_mj_per_sequence: float | None = optional(None)
    cpu: CpuLoad | None = None

    @property
    def threads_used(self) -> int:
        """Number of threads that were busy; 0 if it is not known."""
        return self.cpu.threads_used if self.cpu else 0


@dataclass(frozen=True)
class Measurement(Part):
    """Raw samples of one phase at one shape, in nanoseconds; no averages.

    In JSON, the phase of a replayed trace is "replay " and the name of the trace.

    Attributes:
        windows: (start, end, steps) of each uninterrupted series of samples. Start and end are in ns on the monotonic
            clock.
        steady: whether the warm-up became steady before its time limit.
        throttled: for each window, whether the GPU reported throttling during it; empty without a GPU.
        process: number of the fresh process that measured, from 0.
        trace: name of the trace of requests that was replayed; empty for other phases. A trace has no single shape, so
            `batch` and `sequence` are 0.
    """

    phase: str
    batch: int
    sequence: int
    cuda_graph: bool
    samples: tuple[int, ...]
    windows: tuple[tuple[int, int, int], ...]
    steady: bool
    throttled: tuple[bool, ...] = ()
    telemetry: Telemetry = dataclasses.field(default_factory=Telemetry)
    process: int = 0
    trace: str = optional("")

    @property
    def shape(self) -> tuple[int, int]:
        return self.batch, self.sequence

    @classmethod
    def from_layout(cls, data: Mapping[str, object]) -> Mapping[str, object]:
        phase, _, trace = str(data.get("phase", "")).partition(" ")
        return {**data, "phase": phase, "trace": trace} if phase == REPLAY else data

    def to_layout(self, data: dict[str, object]) -> dict[str, object]:
        trace = data.pop("trace", "")
        return {**data, "phase": f"{self.phase} {trace}"} if trace else data
