"""Progress of a build while it runs, and its cost: seconds by phase, processor time, memory."""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING

from backends.cache import EARLY_S
from backends.cuda import free_memory
from backends.tensorrt_.build.build_log import BuildLog
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi

if TYPE_CHECKING:
    import tensorrt as trt

logger = logging.getLogger(__name__)


class BuildMonitor:
    """Context manager that samples the device's memory during a build, and logs the current phase every second.

    Attributes:
        phase: current phase, as logged.
        detail: function that returns the current layer in words; it may return an empty text.
        estimate: expected seconds from the start to the end of the phase; None if they are not known.
        device_bytes: peak of the device memory in use, above the value at the start. It counts all processes, so it is
            too large if another process builds at the same time.

    Args:
        on_gpu: whether there is a device; without one `device_bytes` stays 0.
    """

    def __init__(self, phase: str, on_gpu: bool = True) -> None:
        self.phase, self._on_gpu = phase, on_gpu
        self.detail: Callable[[], str] = str
        self.estimate: float | None = None
        self.device_bytes = 0
        self._entered: list[tuple[str, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> BuildMonitor:
        self._free_at_start = free_memory() if self._on_gpu else 0
        self._processor_at_start = time.process_time()
        self.enter(self.phase)
        self._thread.start()
        return self

    def enter(self, phase: str, seconds: float | None = None) -> None:
        """Start `phase`, which ends the phase before it. `seconds` are those that it is expected to take, if known."""
        self._entered.append((phase, time.perf_counter()))
        (_, start), (_, begin) = self._entered[0], self._entered[-1]
        self.estimate = None if seconds is None else begin - start + seconds
        self.phase = phase

    def seconds_in(self, phase: str) -> float:
        """Return the seconds of a phase that has ended."""
        return sum(end - begin for (name, begin), (_, end) in pairwise(self._entered) if name == phase)

    def seconds(self) -> float:
        """Return the seconds of all phases that have ended."""
        return self._entered[-1][1] - self._entered[0][1]

    def text(self, seconds: int) -> str:
        """Return the phase, the seconds since the start, those expected at the end of the phase, and the layer."""
        expected = f" of about {self.estimate:.0f} s" if self.estimate else " s"
        detail = self.detail()
        return f"{self.phase}, {seconds}{expected}{f': {detail}' if detail else ''}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.enter("")
        self._processor_s = time.process_time() - self._processor_at_start
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        tenths = 0
        while not self._stop.wait(0.1):
            if self._on_gpu:
                self.device_bytes = max(self.device_bytes, self._free_at_start - free_memory())
            tenths += 1
            if tenths % 10 == 0:
                logger.info("%s", self.text(tenths // 10))

    def notes(self, early: BuildMonitor | None = None) -> dict[str, object]:
        """Return the cost of the build, after the `with` block. `processor_s` counts all threads of this process.

        Args:
            early: monitor of the start of the builder, if it ran during the export.
        """
        spans = [*(pairwise(early._entered) if early else ()), *pairwise(self._entered)]
        return {
            "phases_s": [(phase, round(end - begin, 3)) for (phase, begin), (_, end) in spans],
            **({EARLY_S: round(early.seconds(), 3)} if early else {}),
            "processor_s": round(self._processor_s + (early._processor_s if early else 0.0), 3),
            "peak_device_bytes_of_all": self.device_bytes,
            "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def monitor(api: TensorRTApi, config: trt.IBuilderConfig, watch: BuildMonitor, log: Log) -> None:
    """Make TensorRT report progress, which `watch` logs: by a monitor, or in older releases by messages to `log`."""
    trt, can = api.trt, api.can
    if not can.progress:
        messages = BuildLog()
        log.listener, watch.detail = messages.read, lambda: messages.text
        return

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Outermost phase of the build with its progress in percent, and the phases in it, such as a layer."""

        def __init__(self) -> None:
            super().__init__()
            self._outer = ("", 1)
            self._inner: list[str] = []

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._outer = (phase_name, max(num_steps, 1))
            else:
                self._inner.append(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self._outer[0]:
                watch.phase = f"{phase_name} {100 * step // self._outer[1]}%"
            return True

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self._inner:
                self._inner.remove(phase_name)

        def innermost(self) -> str:
            return self._inner[-1] if self._inner else ""

    config.progress_monitor = reporter = Monitor()
    watch.detail = reporter.innermost
