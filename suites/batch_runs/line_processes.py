"""Lines of a batch that run as processes of `suites.run`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from suites.cli.batch_file import Line
from suites.cli.command_line import REFUSED
from suites.cli.display import STARTED
from suites.measuring.clock import now_ns
from suites.running.batch_gpus import KEY, BatchGpus, device_of
from suites.running.process_tree import CALL, Guard
from suites.text import one_line


@dataclass
class LineProcesses:
    """Starts a process for a line, prints its messages, and notes how it ended.

    Attributes:
        common: arguments that are added to every line.
        processes: the processes that run now.
        failed: the lines that failed.
        refused: the lines that were refused. They do not run again, e.g. in a second process.
        stopped: no more lines start.
        code: folder with the code that runs, such as a git worktree; None: the code of this process.
        cells: number of lines, for the progress.
        begun: the lines of which a process has started to score or to measure.
        gpus: the GPUs. Lines of a GPU that disappears run on the other GPUs.
        returned: the lines of GPUs that disappeared, by their text.
    """

    common: Sequence[str]
    processes: set[subprocess.Popen[str]] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
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
            self._give_back(line, extra)
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
            self._give_back(line, extra)
            return
        if process.returncode and text not in self.failed:
            self.failed.append(text)
        if process.returncode == REFUSED:
            self.refused.add(text)
        lines = [words for words in error.splitlines() if words.strip() and not words.startswith(STARTED)]
        messages = " | ".join(map(one_line, lines)) or "(no message)"
        place = f"cell {len(self.begun)} of {self.cells}  " if self.cells and "until=build" not in extra else ""
        print(f"{place}{(now_ns() - began) / 1e9:.0f} s  {' '.join(extra)}  {messages}", flush=True)

    def _give_back(self, line: Line, extra: Sequence[str]) -> None:
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

    def stop(self) -> None:
        """Start no more lines, and terminate the running processes."""
        self.stopped = True
        for process in list(self.processes):
            process.terminate()
