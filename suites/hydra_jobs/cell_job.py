"""The job of a launcher: run one cell as a process of `suites.run` on this node, and return its answer and records."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backends.json_codec import from_json, to_json
from suites.cli.command_line import INTERRUPTED
from suites.cli.display import STARTED
from suites.hydra_jobs.launchers import LAUNCHERS
from suites.hydra_jobs.sweep_folder import CellAnswer, Launch, RecordFile, SweepFolder
from suites.measuring.machine import gpus
from suites.running.device_lock import claim_device
from suites.running.launch import code_folder
from suites.running.process_tree import CALL, Guard
from suites.tables.touched import TOUCHED

if TYPE_CHECKING:
    from omegaconf import DictConfig

JOBS_WITHOUT_GPU = 2
"""Number of jobs that run at the same time on a host without a GPU: one measures while another exports or scores."""

PAUSE_SECONDS = 1


class Interrupted(Exception):
    """A cell was stopped from outside, so it has no result."""


@dataclass(frozen=True)
class CellJob:
    """Function that a launcher calls with the configuration of a job. Its only key is the number of the cell.

    Attributes:
        launch: JSON of a `Launch`. Launchers copy this object to other processes and nodes.
    """

    launch: object

    def __call__(self, config: DictConfig) -> object:
        """Return the JSON of a `CellAnswer`.

        Raises:
            Interrupted: the run was stopped.
        """
        return to_json(run_cell(from_json(Launch, self.launch), int(config.cell)))


def run_cell(launch: Launch, number: int) -> CellAnswer:
    """Run a cell and return its answer. The answer is also written to the sweep folder, if this node has it.

    A cell that an earlier start of the same job finished does not run again.

    Raises:
        Interrupted: the run was stopped.
    """
    folder = SweepFolder(Path(launch.folder))
    shared = folder.path.is_dir()
    if shared and (answer := folder.read_answer(number)) is not None:
        return answer
    with tempfile.TemporaryDirectory(prefix="suites-job-") as temporary:
        run = _Run(launch, number, Path(temporary), folder.progress_file(number) if shared else None)
        answer = run.to_end()
    if shared and folder.path.is_dir():
        folder.write_answer(answer)
    return answer


def node_name() -> str:
    """Return the name of this node in its cluster."""
    return os.environ.get("SLURMD_NODENAME") or platform.node()


@dataclass(frozen=True)
class _Run:
    """One process of `suites.run`.

    Attributes:
        temporary: folder of this run.
        progress: file for lines of progress; None if the command cannot see this node's files.
    """

    launch: Launch
    number: int
    temporary: Path
    progress: Path | None

    def to_end(self) -> CellAnswer:
        words = self.launch.cells[self.number]
        touched = self.temporary / "touched"
        restored = {**os.environ, **self.launch.environment} if self._on_same_host() else {**os.environ}
        environment = {name: value for name, value in restored.items() if value is not None}
        self._say("starting")
        with _device(words, environment) as device:
            process = subprocess.Popen(
                [sys.executable, "-m", "suites.run", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                cwd=self._working(),
                env={**environment, **device, **self._own_environment(environment, touched)},
            )
            messages = self._messages(process)
            status = process.wait()
        if status == INTERRUPTED or status < 0:
            raise Interrupted(f"the run of the cell ended with status {status}")
        return CellAnswer(self.number, node_name(), status, tuple(messages), tuple(self._records(touched)))

    def _on_same_host(self) -> bool:
        return LAUNCHERS[self.launch.choice.name].same_host

    def _working(self) -> Path:
        return Path(self.launch.working) if os.path.isdir(self.launch.working) else Path.cwd()

    def _own_environment(self, environment: Mapping[str, str], touched: Path) -> dict[str, str]:
        code = [str(code_folder(self.temporary)), environment.get("PYTHONPATH", "")]
        # The guard ends the run if this process is killed.
        mark = f"{Guard.start()}-cell{self.number}"
        return {"PYTHONPATH": os.pathsep.join(filter(None, code)), TOUCHED: str(touched), CALL: mark}

    def _messages(self, process: subprocess.Popen[str]) -> list[str]:
        """Write lines of progress until the run ends. Return its other lines."""
        assert process.stderr is not None
        messages = []
        for line in filter(None, map(str.rstrip, process.stderr)):
            if line.startswith(STARTED):
                # The place and the remaining time are those of a sweep of one cell.
                parts = line.removeprefix(STARTED).split("  ")
                self._say("  ".join(part for part in parts if not re.fullmatch(r"cell \d+ of \d+|.* left", part)))
            else:
                messages.append(line)
        return messages

    def _say(self, text: str) -> None:
        line = f"{STARTED}cell {self.number + 1} of {len(self.launch.cells)}  {node_name()}  {text}\n"
        if self.progress is None:
            print(line, end="", file=sys.stderr, flush=True)
        elif self.progress.parent.is_dir():
            with self.progress.open("a", encoding="utf-8") as stream:
                stream.write(line)

    def _records(self, touched: Path) -> Iterator[RecordFile]:
        lines = touched.read_text(encoding="utf-8").splitlines() if touched.exists() else []
        for results, machine, suite, cell, *_ in map(json.loads, dict.fromkeys(lines)):
            path = self._working() / results / machine / "records" / suite / f"{cell}.json"
            yield RecordFile(machine, suite, cell, path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def _device(words: tuple[str, ...], environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Claim one GPU of this node that no other job uses, and yield the variables that select it.

    Without a GPU, or with gpu= in `words`, the variables do not change. A node without a GPU limits the number of jobs.
    """
    if any(word.startswith("gpu=") for word in words):
        yield {}
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = environment.get("CUDA_VISIBLE_DEVICES", "")
    if "CUDA_VISIBLE_DEVICES" not in environment:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    uuids = [machine.device.uuid for machine in gpus()]
    names = uuids or [f"cpu{number}" for number in range(JOBS_WITHOUT_GPU)]
    with claim_device(names, lambda: time.sleep(PAUSE_SECONDS)) as name:
        yield {"CUDA_VISIBLE_DEVICES": name} if uuids else {}
