"""Run many cells from a file on all GPUs in a given time: `python -m suites.batch FILE`.

FILE has one cell or sweep per line, as typed after `python -m suites.run`. Text after # is a comment. Lines run in the
order of the file. A sweep is split into its cells. Each GPU takes A engines (--ahead) and builds N of them at the same
time (--builders). Then it scores the outputs of accuracy cells, up to N cells at the same time, and measures the other
cells one after another. With --measuring, the last M GPUs only measure and the other GPUs only build. No engine is
started after --seconds. Started engines are finished, and the same command continues later with the built engines.
Key=value arguments are added to every line.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from queue import Queue
from threading import Lock

from suites.cli.batch_file import (
    Line,
    batch_file,
    group_by_engine,
    is_timed_line,
    numbered_commands,
    process_count,
    read_cells,
)
from suites.cli.command_line import REFUSED, CommandParser, overrides, run_guarded
from suites.cli.display import STARTED
from suites.cli.hydra_errors import check_keys
from suites.cli.output import run_with_tolerant_output
from suites.cli.plan_invocation import print_plan
from suites.measuring.clock import now_ns
from suites.measuring.machine import gpu_uuids
from suites.root import CONF
from suites.running.batch_gpus import KEY, BatchGpus, device_of
from suites.running.process_tree import CALL, Guard
from suites.schema.refusals import Refused, at_least
from suites.tables.touched import tables_at_end
from suites.text import one_line


@dataclass
class Batch:
    """Lines of a batch that run as processes of `suites.run`.

    Attributes:
        common: arguments that are added to every line.
        end_ns: time after which no more engines start.
        processes: the processes that run now.
        failed: the lines that failed.
        refused: the lines that were refused. They do not run again, e.g. in a second process.
        taking: lock for the shared iterator of engines.
        stopped: no more lines start.
        code: folder with the code that runs, such as a git worktree; None: the code of this process.
        cells: number of lines, for the progress.
        begun: the lines of which a process has started to score or to measure.
        gpus: the GPUs. Lines of a GPU that disappears run on the other GPUs.
        returned: the lines of GPUs that disappeared, by their text.
    """

    common: Sequence[str]
    end_ns: float
    processes: set[subprocess.Popen[str]] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    engine_lock: Lock = field(default_factory=Lock)
    stopped: bool = False
    code: Path | None = None
    cells: int = 0
    begun: set[str] = field(default_factory=set)
    gpus: BatchGpus = field(default_factory=BatchGpus)
    returned: dict[str, Line] = field(default_factory=dict)

    def run(self, line: Line, *extra: str) -> None:
        """Run one line to its end, print its messages on one line, and note whether it failed."""
        text = shlex.join(line)
        device = device_of(extra)
        if self.stopped or text in self.refused:
            return
        if self.gpus.gone(device) or not self.gpus.check(device):
            self._return(line, extra)
            return
        flags = [word for word in line if word.startswith("-")]
        rest = [word for word in line if not word.startswith("-")]
        command = [
            *self._python(),
            "-m",
            "suites.run",
            *flags,
            *rest,
            *self.common,
            *(f"{KEY}0" if word == f"{KEY}{device}" else word for word in extra),
        ]
        began = now_ns()
        if "until=build" not in extra:
            self.begun.add(text)
        # The guard ends the new process if this process is killed.
        environment = {
            **os.environ,
            **self._search_path(),
            **self.gpus.environment(device),
            CALL: f"{Guard.start()}-{began}",
        }
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment,
        )
        self.processes.add(process)
        _, error = process.communicate()
        self.processes.discard(process)
        if process.returncode and not self.stopped and not self.gpus.check(device):
            self._return(line, extra)
            return
        if process.returncode and text not in self.failed:
            self.failed.append(text)
        if process.returncode == REFUSED:
            self.refused.add(text)
        lines = [words for words in error.splitlines() if words.strip() and not words.startswith(STARTED)]
        messages = " | ".join(map(one_line, lines)) or "(no message)"
        place = f"cell {len(self.begun)} of {self.cells}  " if self.cells and "until=build" not in extra else ""
        print(f"{place}{(now_ns() - began) / 1e9:.0f} s  {' '.join(extra)}  {messages}", flush=True)

    def _return(self, line: Line, extra: Sequence[str]) -> None:
        """Keep a line whose GPU has disappeared for the other GPUs."""
        if "until=build" not in extra:
            self.returned[shlex.join(line)] = line
            print(f"gpu={device_of(extra)} has disappeared; another GPU runs: {shlex.join(line)}", flush=True)

    def _python(self) -> list[str]:
        # With -P the current folder, which may have the project too, does not hide the code of `PYTHONPATH`.
        return [sys.executable, *(["-P"] if self.code else [])]

    def _search_path(self) -> dict[str, str]:
        if self.code is None:
            return {}
        return {"PYTHONPATH": os.pathsep.join(filter(None, [str(self.code), os.environ.get("PYTHONPATH", "")]))}

    def work(self, waiting: Iterator[list[Line]], device: str, builders: int, ahead: int) -> None:
        """Run engines on one device until `waiting` is empty or the time is over.

        Args:
            waiting: engines that wait, shared with other devices.
            builders: engines that are built at the same time; 0 builds none in advance.
            ahead: engines that are built before any of them is measured.
        """
        while not self.gpus.gone(device) and (engines := self._build_next(waiting, device, builders, ahead)):
            lines = [line for lines in engines for line in lines]
            self._run_together([line for line in lines if not is_timed_line(line)], max(1, builders), *_on(device))
            self._run_in_turns([line for line in lines if is_timed_line(line)], *_on(device))

    def _run_in_turns(self, lines: Sequence[Line], *extra: str) -> None:
        """Measure one line at a time: the first process of each line, then the second of each, as a sweep does.

        A single line runs all its processes at once.
        `suites.run` adds each process to the processes that the record already has.
        """
        if len(lines) == 1:
            self.run(lines[0], *extra)
            return
        repeats = [process_count([*line, *self.common]) for line in lines]
        for process in range(1, max(repeats, default=0) + 1):
            for number, line in enumerate(lines):
                if process <= repeats[number]:
                    self.run(line, f"repeats={process}", *(["rerun=false"] if process > 1 else []), *extra)

    def _build_next(self, waiting: Iterator[list[Line]], device: str, builders: int, ahead: int) -> list[list[Line]]:
        """Build the next engines and return their lines, in order."""
        engines: list[list[Line]] = []
        slots = iter(range(ahead))

        def build() -> None:
            for _ in slots:
                if (lines := self._next_engine(waiting)) is None:
                    return
                engines.append(lines)
                if builders:
                    self.run(lines[0], "until=build", *_on(device))

        with ThreadPoolExecutor(max(1, builders)) as pool:
            for done in [pool.submit(build) for _ in range(max(1, builders))]:
                done.result()
        return engines

    def divide(
        self, waiting: Iterator[list[Line]], building: Sequence[str], measuring: Sequence[str], builders: int
    ) -> None:
        """Run engines with devices that only build and devices that only measure.

        Args:
            builders: engines that each building device builds at the same time.
        """
        built: Queue[list[Line] | None] = Queue()

        def build(device: str) -> None:
            while not self.gpus.gone(device) and (lines := self._next_engine(waiting)):
                self.run(lines[0], "until=build", *_on(device))
                built.put(lines)

        def measure(device: str) -> None:
            while (lines := built.get()) is not None:
                for line in self._next_engine(iter([lines])) or ():
                    self.run(line, *_on(device))

        with ThreadPoolExecutor(len(measuring)) as pool:
            ends = [pool.submit(measure, device) for device in measuring]
            with ThreadPoolExecutor(len(building) * builders) as builds:
                begun = [builds.submit(build, device) for device in building for _ in range(builders)]
            for _ in measuring:
                built.put(None)
            for done in (*begun, *ends):
                done.result()

    def _run_together(self, lines: Sequence[Line], at_once: int, *extra: str) -> None:
        with ThreadPoolExecutor(at_once) as pool:
            for done in [pool.submit(self.run, line, *extra) for line in lines]:
                done.result()

    def _next_engine(self, waiting: Iterator[list[Line]]) -> list[Line] | None:
        """Return the lines of the next engine; None if there is none.

        When the time is over or the batch was stopped, print the lines that remain and return None.
        """
        with self.engine_lock:
            if now_ns() < self.end_ns:
                return next(waiting, None)
            reason = "the batch was stopped" if self.stopped else "the time is over"
            for line in chain.from_iterable(waiting):
                print(f"skipped because {reason}: {shlex.join(line)}", flush=True)
            return None

    def stop(self) -> None:
        """Start no more lines, and terminate the running processes."""
        self.end_ns, self.stopped = 0, True
        for process in list(self.processes):
            process.terminate()


def _on(device: str) -> list[str]:
    return [f"gpu={device}"] if device else []


def main(arguments: Sequence[str]) -> int:
    """Run the batch. Return 0, 1 if a started line failed, or 2 if the batch was refused."""

    def run() -> int:
        parser = _parser()
        options, unknown = parser.parse_known_args(arguments)
        common = [*options.words, *unknown]
        parser.refuse_options(common)
        check_keys(common)
        return _run(options, overrides(common))

    return run_guarded(lambda: tables_at_end(run))


def _parser() -> CommandParser:
    parser = CommandParser(
        "batch",
        "Run many cells from a file on all GPUs in a given time, and write their tables at the end.\n\n"
        "FILE has one cell or sweep per line, as typed after `run`. Text after # is a comment. Lines run in the order\n"
        "of the file. The same command continues a batch that was stopped, with the engines that were built.\n"
        "Exit status: 0 all started lines ended well, 1 a line failed, 2 the batch was refused, or with --plan a cell.",
        (
            "tensorrt_grid --builders 4 --seconds 3600",
            "my_cells.txt --ahead 20 suite.warm_up_s=0.5 results=results/mine",
            "my_cells.txt --plan",
        ),
    )
    own = ", ".join(sorted(file.stem for file in (CONF / "batches").glob("*.txt")))
    parser.add_argument("file", type=Path, metavar="FILE", help=f"a file, or the name of a batch of the project: {own}")
    parser.add_argument(
        "words", nargs="*", default=[], metavar="key=value", help="a group or a key of `run`, added to every line"
    )
    building = parser.add_argument_group("building")
    building.add_argument(
        "--builders", type=int, default=1, metavar="N",
        help="number of engines that each GPU builds at the same time; 0 or the default 1: each cell builds its own",
    )  # fmt: skip
    building.add_argument(
        "--ahead", type=int, metavar="A", help="number of engines that a GPU builds before it measures; default N"
    )
    measuring = parser.add_argument_group("measuring")
    measuring.add_argument(
        "--measuring", type=int, default=0, metavar="M",
        help="number of GPUs that only measure the engines that the other GPUs build; default 0",
    )  # fmt: skip
    parser.add_argument_group("planning").add_argument(
        "--plan", action="store_true", help="print cells, engines, time and memory of the batch, and run nothing"
    )
    measuring.add_argument(
        "--seconds",
        type=float,
        default=float("inf"),
        metavar="S",
        help="start no engine after S seconds; default: no limit",
    )
    return parser


def _run(options: argparse.Namespace, common: Sequence[str]) -> int:
    if not options.seconds >= 0:
        raise Refused(f"--seconds must be at least 0, not {options.seconds:g}")
    file = batch_file(options.file)
    lines = read_cells(file)
    if not lines:
        raise Refused(
            f"{options.file} has no lines; write one cell or sweep per line, with the arguments of python -m suites.run"
        )
    uuids = gpu_uuids()
    devices = [str(index) for index, _ in enumerate(uuids)] or [""]
    at_least("--builders", options.builders, 0)
    at_least("--measuring", options.measuring, 0)
    if options.ahead is not None:
        at_least("--ahead", options.ahead, 1)
    if options.measuring and (options.measuring >= len(devices) or options.builders < 1):
        raise Refused(
            f"--measuring {options.measuring} needs another device that builds, and --builders of at least 1; "
            f"there are {len(devices)} devices"
        )
    if options.plan:
        commands = (([*words, *common], f"line {number}") for number, words in numbered_commands(file))
        return print_plan(commands, len(devices))
    batch = Batch(common, now_ns() + options.seconds * 1e9, cells=len(lines), gpus=BatchGpus(uuids, gpu_uuids))
    engines = group_by_engine(lines)
    while engines and devices:
        engines = _run_engines(batch, engines, devices, options)
        devices = [device for device in devices if not batch.gpus.gone(device)]
    batch.failed += [shlex.join(line) for lines in engines for line in lines]
    for text in batch.failed:
        print(f"failed: {text}")
    return int(bool(batch.failed))


def _run_engines(
    batch: Batch, engines: Sequence[list[Line]], devices: Sequence[str], options: argparse.Namespace
) -> list[list[Line]]:
    """Run engines on the devices. Return the engines of GPUs that disappeared meanwhile."""
    waiting = iter(engines)
    ahead = options.ahead or max(1, options.builders)
    # A single engine that is built just before its measurement needs no process of its own.
    builders = options.builders if max(options.builders, ahead) > 1 else 0
    with ThreadPoolExecutor(len(devices)) as pool:
        if options.measuring and options.measuring < len(devices):
            building, measuring = devices[: -options.measuring], devices[-options.measuring :]
            running = [pool.submit(batch.divide, waiting, building, measuring, options.builders)]
        else:
            running = [pool.submit(batch.work, waiting, device, builders, ahead) for device in devices]
        try:
            for done in wait(running).done:
                done.result()
        except KeyboardInterrupt:
            batch.stop()  # otherwise the end of the block would wait for all remaining lines
            raise
    returned, batch.returned = [*batch.returned.values()], {}
    return [*group_by_engine(returned), *waiting]


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
