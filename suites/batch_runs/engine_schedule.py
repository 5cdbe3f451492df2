"""Order of the lines of a batch on the devices: which engine is built next, and when it is scored and measured."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import chain, count
from queue import PriorityQueue
from threading import Lock

from suites.batch_runs.line_processes import LineProcesses
from suites.cli.batch_file import Build, Line, build_of, group_by_engine, is_timed_line, process_count
from suites.measuring.clock import now_ns

BUILT, UNBUILT, END = range(3)
"""What a device that only measures takes first: built engines, then lines without a build, then the end."""


@dataclass(frozen=True)
class Division:
    """Work of the devices.

    Attributes:
        builders: engines that a device builds at the same time; 0 builds none in advance.
        ahead: engines that a device builds before it measures any of them.
        measuring: number of devices, the last ones, that only measure the engines that the others build.
    """

    builders: int
    ahead: int
    measuring: int

    @property
    def in_advance(self) -> int:
        """Engines that a device builds at the same time before it measures them.

        A single engine that is built just before its measurement needs no process of its own.
        """
        return self.builders if max(self.builders, self.ahead) > 1 else 0


@dataclass
class Batch:
    """Engines with their lines, which wait for a device.

    Attributes:
        lines: the processes of lines.
        end_ns: time after which no more engines start.
        engine_lock: lock for the shared iterator of engines.
    """

    lines: LineProcesses
    end_ns: float
    engine_lock: Lock = field(default_factory=Lock)

    def run(self, engines: list[list[Line]], devices: Sequence[str], division: Division) -> None:
        """Run all engines. Lines for which no device remains count as failed."""
        while engines and devices:
            engines = self._run_once(engines, devices, division)
            devices = [device for device in devices if not self.lines.gpus.gone(device)]
        self.lines.failed += [shlex.join(line) for lines in engines for line in lines]

    def _run_once(self, engines: Sequence[list[Line]], devices: Sequence[str], division: Division) -> list[list[Line]]:
        """Run engines on the devices. Return the engines of GPUs that disappeared meanwhile."""
        waiting = iter(engines)
        with ThreadPoolExecutor(len(devices)) as pool:
            if division.measuring and division.measuring < len(devices):
                builds = {kind: [lines for lines in engines if self._build_of(lines) is kind] for kind in Build}
                waiting, unbuilt = iter([*builds[Build.files], *builds[Build.engine]]), builds[Build.nothing]
                running = [pool.submit(self.divide, waiting, unbuilt, devices, division)]
            else:
                running = [pool.submit(self.work, waiting, device, division) for device in devices]
            try:
                for done in wait(running).done:
                    done.result()
            except KeyboardInterrupt:
                self.lines.stop()  # otherwise the end of the block would wait for all remaining lines
                raise
        returned, self.lines.returned = [*self.lines.returned.values()], {}
        return [*group_by_engine(returned), *waiting]

    def work(self, waiting: Iterator[list[Line]], device: str, division: Division) -> None:
        """Run engines on one device until `waiting` is empty or the time is over.

        Args:
            waiting: engines that wait, shared with other devices.
        """
        at_once = max(1, division.in_advance)
        while not self.lines.gpus.gone(device) and (engines := self._build_next(waiting, device, division)):
            lines = [line for lines in engines for line in lines]
            self._run_together([line for line in lines if not is_timed_line(line)], at_once, *_on(device))
            self._run_in_turns([line for line in lines if is_timed_line(line)], *_on(device))

    def _run_in_turns(self, lines: Sequence[Line], *extra: str) -> None:
        """Measure one line at a time: the first process of each line, then the second of each, as a sweep does.

        A single line runs all its processes at once.
        `suites.run` adds each process to the processes that the record already has.
        """
        if len(lines) == 1:
            self.lines.run(lines[0], *extra)
            return
        repeats = [process_count([*line, *self.lines.common]) for line in lines]
        for process in range(1, max(repeats, default=0) + 1):
            for number, line in enumerate(lines):
                if process <= repeats[number]:
                    self.lines.run(line, f"repeats={process}", *(["rerun=false"] if process > 1 else []), *extra)

    def _build_next(self, waiting: Iterator[list[Line]], device: str, division: Division) -> list[list[Line]]:
        """Build the next engines and return their lines, in order."""
        engines: list[list[Line]] = []
        builders, slots = division.in_advance, iter(range(division.ahead))

        def build() -> None:
            for _ in slots:
                if (lines := self._next_engine(waiting)) is None:
                    return
                engines.append(lines)
                if builders:
                    self.lines.run(lines[0], "until=build", *_on(device))

        with ThreadPoolExecutor(max(1, builders)) as pool:
            for done in [pool.submit(build) for _ in range(max(1, builders))]:
                done.result()
        return engines

    def divide(
        self, waiting: Iterator[list[Line]], unbuilt: Sequence[list[Line]], devices: Sequence[str], division: Division
    ) -> None:
        """Run engines with devices that only build and devices that only measure.

        Args:
            waiting: engines in the order in which they are built.
            unbuilt: lines without a build. They are measured while no built engine waits.
        """
        building, measuring = devices[: -division.measuring], devices[-division.measuring :]
        order, builders = count(), division.builders
        ready = PriorityQueue[tuple[int, int, list[Line]]]()
        for lines in unbuilt:
            ready.put((UNBUILT, next(order), lines))

        def build(device: str) -> None:
            while not self.lines.gpus.gone(device) and (lines := self._next_engine(waiting)):
                self.lines.run(lines[0], "until=build", *_on(device))
                ready.put((BUILT, next(order), lines))

        def measure(device: str) -> None:
            while lines := ready.get()[-1]:
                for line in self._next_engine(iter([lines])) or ():
                    self.lines.run(line, *_on(device))

        with ThreadPoolExecutor(len(measuring)) as pool:
            ends = [pool.submit(measure, device) for device in measuring]
            with ThreadPoolExecutor(len(building) * builders) as builds:
                begun = [builds.submit(build, device) for device in building for _ in range(builders)]
            for _ in measuring:
                ready.put((END, next(order), []))
            for done in (*begun, *ends):
                done.result()

    def _build_of(self, lines: Sequence[Line]) -> Build:
        return build_of([*lines[0], *self.lines.common])

    def _run_together(self, lines: Sequence[Line], at_once: int, *extra: str) -> None:
        with ThreadPoolExecutor(at_once) as pool:
            for done in [pool.submit(self.lines.run, line, *extra) for line in lines]:
                done.result()

    def _next_engine(self, waiting: Iterator[list[Line]]) -> list[Line] | None:
        """Return the lines of the next engine; None if there is none.

        When the time is over or the batch was stopped, print the lines that remain and return None.
        """
        with self.engine_lock:
            if now_ns() < self.end_ns and not self.lines.stopped:
                return next(waiting, None)
            reason = "the batch was stopped" if self.lines.stopped else "the time is over"
            for line in chain.from_iterable(waiting):
                print(f"skipped because {reason}: {shlex.join(line)}", flush=True)
            return None


def _on(device: str) -> list[str]:
    return [f"gpu={device}"] if device else []
