"""Progress of a build while it runs, and its cost: seconds by phase, processor time, memory."""

from __future__ import annotations

import logging
import resource
import threading
import time
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING

from cuda.bindings import runtime

from backends.cuda import checked
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi

if TYPE_CHECKING:
    import tensorrt as trt

logger = logging.getLogger(__name__)


class BuildMonitor:
    """Context manager that samples the device's memory during a build, and logs the current phase every second.

    Attributes:
        phase: current phase, as logged.
        device_bytes: peak of the device memory in use, above the value at the start. It counts all processes, so it is
            too large if another process builds at the same time.
    """

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.device_bytes = 0
        self._entered: list[tuple[str, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> BuildMonitor:
        self._free_at_start, _ = checked(runtime.cudaMemGetInfo())
        self._processor_at_start = time.process_time()
        self.enter(self.phase)
        self._thread.start()
        return self

    def enter(self, phase: str) -> None:
        """Start `phase`, which ends the phase before it."""
        self._entered.append((phase, time.perf_counter()))
        self.phase = phase

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
            free, _ = checked(runtime.cudaMemGetInfo())
            self.device_bytes = max(self.device_bytes, self._free_at_start - free)
            tenths += 1
            if tenths % 10 == 0:
                logger.info("%s, %d s", self.phase, tenths // 10)

    def notes(self) -> dict[str, object]:
        """Return the cost of the build, after the `with` block. `processor_s` counts all threads of this process."""
        spans = pairwise(self._entered)
        return {
            "phases_s": [(phase, round(end - begin, 3)) for (phase, begin), (_, end) in spans],
            "processor_s": round(self._processor_s, 3),
            "peak_device_bytes_of_all": self.device_bytes,
            "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def monitor(api: TensorRTApi, config: trt.IBuilderConfig, watch: BuildMonitor) -> None:
    """Make TensorRT report the phases of the build, in releases that can; `watch` logs them."""
    trt, can = api.trt, api.can
    if not can.progress:
        return

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Outermost phase of the build, and its progress in percent."""

        def __init__(self) -> None:
            super().__init__()
            self._outer = ("", 1)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._outer = (phase_name, max(num_steps, 1))

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self._outer[0]:
                watch.phase = f"{phase_name} {100 * step // self._outer[1]}%"
            return True

        def phase_finish(self, phase_name: str) -> None:
            pass

    config.progress_monitor = Monitor()
