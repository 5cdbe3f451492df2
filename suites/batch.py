"""Many cells over all GPUs in a given time: `python -m suites.batch FILE [--builders N] [--seconds S] [key=value ...]`.

FILE has one cell or sweep a line, as it would be typed after `python -m suites.run`; # begins a comment, and the first
lines matter most. A sweep is taken apart into its cells. Engines are built first, N at a time on each GPU, then every
GPU measures one cell after another. Nothing new is begun after S seconds, and what was not finished goes on from there
with the same command. Key=value arguments go to every line.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from suites.clock import now_ns
from suites.machine import gpus


@dataclass
class Batch:
    """Runs lines as processes of `suites.run`; `end_ns` is when to begin nothing new."""

    common: Sequence[str]
    end_ns: float
    processes: set[subprocess.Popen[str]] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)

    def run(self, line: Sequence[str], *extra: str) -> None:
        """Run one line to its end, print its last line, and remember if it failed."""
        if now_ns() >= self.end_ns:
            print(f"left out, the time is over: {shlex.join(line)}", flush=True)
            return
        flags = [word for word in line if word.startswith("-")]
        rest = [word for word in line if not word.startswith("-")]
        command = [sys.executable, "-m", "suites.run", *flags, *rest, *self.common, *extra]
        began = now_ns()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.processes.add(process)
        _, error = process.communicate()
        self.processes.discard(process)
        if process.returncode:
            self.failed.append(shlex.join(line))
        said = " | ".join(text for text in error.splitlines() if text.strip()) or "(nothing said)"
        print(f"{(now_ns() - began) / 1e9:.0f} s  {' '.join(extra)}  {said}", flush=True)

    def build(self, lines: Sequence[Sequence[str]], devices: Sequence[str], builders: int) -> None:
        """Build every line, `builders` at a time on each device."""
        on = [devices[number % len(devices)] for number in range(len(lines))]
        jobs = [partial(self.run, line, "until=build", *_on(device)) for line, device in zip(lines, on, strict=True)]
        self._all(jobs, builders * len(devices))

    def measure(self, lines: Sequence[Sequence[str]], devices: Sequence[str]) -> None:
        """Measure every line, one at a time on each device."""
        waiting = iter(lines)

        def work(device: str) -> None:
            # All that are at it share one iterator, which CPython advances for one thread at a time.
            for line in waiting:
                self.run(line, *_on(device))

        self._all([partial(work, device) for device in devices], len(devices))

    def _all(self, jobs: Sequence[Callable[[], None]], at_a_time: int) -> None:
        with ThreadPoolExecutor(at_a_time) as pool:
            running = [pool.submit(job) for job in jobs]
            try:
                for job in wait(running).done:
                    job.result()
            except KeyboardInterrupt:
                self.stop()  # or leaving the block would begin all the lines that wait
                raise

    def stop(self) -> None:
        """Begin nothing more, and interrupt what runs."""
        self.end_ns = 0
        for process in list(self.processes):
            process.terminate()


def read_lines(path: Path) -> list[list[str]]:
    """The words of each line that has any."""
    lines = [shlex.split(line, comments=True) for line in path.read_text().splitlines()]
    return [line for line in lines if line]


def cells(line: Sequence[str]) -> list[list[str]]:
    """A line for each combination of what `line` sweeps over; what an experiment's file sweeps over stays in one.

    Raises:
        HydraException: a word is no override that Hydra knows.
    """
    parser = OverridesParser.create()
    choices = []
    for word in line:
        override = None if word.startswith("-") else parser.parse_override(word)
        if override is not None and override.is_sweep_override():
            choices.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([word])
    return [list(words) for words in product(*choices)]


def _on(device: str) -> list[str]:
    return [f"gpu={device}"] if device else []


def main(arguments: Sequence[str]) -> int:
    """Run the batch; returns 0 if every line that was begun ended well, 1 if not, 2 if it is no batch."""
    parser = argparse.ArgumentParser(prog="python -m suites.batch", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("file", type=Path)
    parser.add_argument("--builders", type=int, default=1, help="engines built at a time on each GPU; 0: none first")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing new after this many")
    options, common = parser.parse_known_args(arguments)
    try:
        lines = [cell for line in read_lines(options.file) for cell in cells(line)]
    except (OSError, HydraException) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    devices = [str(index) for index, _ in enumerate(gpus())] or [""]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    batch = Batch(common, now_ns() + options.seconds * 1e9)
    try:
        if options.builders:
            batch.build(lines, devices, options.builders)
        batch.measure(lines, devices)
    except KeyboardInterrupt:
        return 130
    for line in batch.failed:
        print(f"failed: {line}")
    return int(bool(batch.failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
