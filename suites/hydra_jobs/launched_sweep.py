"""Run the cells of a sweep with a launcher: start it, report progress, collect answers, and end all jobs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from suites.hydra_jobs.launchers import SHORT_FOLDER, Choice
from suites.hydra_jobs.sweep_folder import CellAnswer, Launch, SweepFolder
from suites.running.launch import code_folder
from suites.running.process_tree import CALL, Watcher
from suites.schema.refusals import Refused
from suites.text import one_line

LAUNCHES = 3
"""Times that a cell is started, if its node or its job was lost."""

POLL_SECONDS = 0.5

RESTORED = ("CUDA_VISIBLE_DEVICES",)
"""Variables that a launcher on this host changes."""


KEEP_ENVIRONMENT = {"SPT_NOENV": "1"}
"""Ray's processes write their title over their environment without this variable, and then nothing finds their mark."""


@dataclass
class LaunchedSweep:
    """Cells of a sweep that a launcher runs.

    Attributes:
        cells: arguments of `suites.run` for each cell.
        on_progress: receives each line of progress.
        on_answer: receives the answer of each cell when its job has ended.
        lost: the numbers of the cells whose jobs ended without an answer.
        failure: the last failure of the launcher in one line.
    """

    choice: Choice
    cells: Sequence[Sequence[str]]
    on_progress: Callable[[str], None]
    on_answer: Callable[[CellAnswer], None]
    lost: list[int] = field(default_factory=list)
    failure: str = ""
    _read: dict[int, int] = field(default_factory=dict)
    _answered: set[int] = field(default_factory=set)
    _waiting: set[str] = field(default_factory=set)

    def run(self, results: Path) -> None:
        """Run all cells. `results` is the folder of their records.

        Raises:
            Refused: the launcher refused the jobs before any of them started, or `results` cannot be written.
        """
        try:
            folder = SweepFolder.create(results)
        except OSError as error:
            raise Refused(f"results={results} cannot be written ({error.strerror}); choose another folder") from None
        try:
            for _ in range(LAUNCHES):
                self.lost = [number for number in range(len(self.cells)) if number not in self._answered]
                if not self.lost:
                    break
                self._launch(folder)
            self.lost = [number for number in self.lost if number not in self._answered]
        finally:
            if not self.lost:
                folder.remove()
        if self.lost:
            self.failure = f"{self.failure or 'the jobs ended without an answer'} (log: {folder.log})"

    def _launch(self, folder: SweepFolder) -> None:
        """Start the launcher once for all cells without an answer, and wait until it has ended."""
        job_name = f"suites-{uuid.uuid4().hex[:12]}"
        environment = {name: os.environ.get(name) for name in RESTORED}
        cells = tuple(tuple(words) for words in self.cells)
        launch = Launch(self.choice, job_name, str(folder.path), str(Path.cwd()), cells, tuple(self.lost), environment)
        folder.write_launch(launch)
        with tempfile.TemporaryDirectory(prefix="suites-launch-") as code, _ended_with_this(launch) as mark:
            process = _start(folder, Path(code), mark)
            try:
                while process.poll() is None:
                    self._report(folder)
                    time.sleep(POLL_SECONDS)
            finally:
                process.kill()
                process.wait()
        self._report(folder)
        self.failure = folder.take_failure() or self.failure
        if process.returncode and not self._answered and not self._read:
            reason = self.failure or f"its process ended with status {process.returncode}; log: {folder.log}"
            folder.remove()
            settings = "; correct the settings hydra.launcher.KEY=VALUE, or leave hydra/launcher out"
            advice = "" if reason.endswith(SHORT_FOLDER) else settings
            raise Refused(f"hydra/launcher={self.choice.name} started no job: {reason}{advice}")

    def _report(self, folder: SweepFolder) -> None:
        """Report new lines of progress, new answers, and each new reason why the cluster does not start jobs."""
        if (reason := folder.read_waiting()) and reason not in self._waiting:
            self._waiting.add(reason)
            self.on_progress(one_line(reason))
        for number in self.lost:
            if number in self._answered:
                continue
            path = folder.progress_file(number)
            answer = folder.read_answer(number)
            with contextlib.suppress(FileNotFoundError):
                text = path.read_bytes()[self._read.get(number, 0) :]
                whole = text[: text.rfind(b"\n") + 1]
                self._read[number] = self._read.get(number, 0) + len(whole)
                for line in whole.decode("utf-8", "replace").splitlines():
                    self.on_progress(one_line(line))
            if answer is not None:
                self._answered.add(number)
                self.on_answer(answer)


@contextlib.contextmanager
def _ended_with_this(launch: Launch) -> Iterator[str]:
    """Yield a mark for SUITES_CALL. Processes with it, and jobs in a queue, end with the block or this process."""
    cancel = ["scancel", f"--name={launch.job_name}"] if launch.choice.name == "submitit_slurm" else []
    watcher = Watcher(launch.job_name, cancel)
    try:
        yield launch.job_name
    finally:
        watcher.end()


def _start(folder: SweepFolder, code: Path, mark: str) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, [str(code_folder(code)), os.environ.get("PYTHONPATH", "")]))
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "suites.hydra_jobs.launch_process", str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": path, CALL: mark, **KEEP_ENVIRONMENT, "HYDRA_FULL_ERROR": "1"},
            start_new_session=True,
        )
