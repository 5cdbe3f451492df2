"""Folder through which the jobs of a launcher report to the command that started them.

It is `<results>/.launches/<unique name>`. For cell number N, counted from 0, N.progress has the lines of a running cell
and N.json has its answer. launch.json has the cells. launch.log has the output of the launcher. waiting has the reason
why a cluster does not start jobs. If the nodes of a cluster do not share this folder, answers come back as return
values of the jobs, and there are no lines of progress.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backends.atomic_file import write_atomically
from backends.json_codec import from_json, to_json
from suites.hydra_jobs.launchers import Choice
from suites.running.job_folders import lock_is_free

PARENT = ".launches"
"""Folder of these folders. It has no `records`, so it is not a machine."""


@dataclass(frozen=True)
class RecordFile:
    """A record that a job wrote: its machine, its suite, the id of its cell, and the text of the file."""

    machine: str
    suite: str
    cell: str
    text: str


@dataclass(frozen=True)
class CellAnswer:
    """Result of one job.

    Attributes:
        cell: number of the cell.
        host: name of the node that ran the cell.
        status: exit status of `suites.run`.
        messages: lines that the run printed on standard error, without lines of progress.
    """

    cell: int
    host: str
    status: int
    messages: tuple[str, ...] = ()
    records: tuple[RecordFile, ...] = ()


@dataclass(frozen=True)
class Launch:
    """Jobs that a launcher starts.

    Attributes:
        choice: the launcher.
        job_name: unique name of the jobs.
        folder: path of the sweep folder.
        working: the current folder of the command. A job uses it if its node has it.
        cells: arguments of `suites.run` for each cell of the sweep.
        pending: numbers of the cells that this launch runs.
        environment: variables that a launcher would change and that jobs on this host get back. None: not set.
    """

    choice: Choice
    job_name: str
    folder: str
    working: str
    cells: tuple[tuple[str, ...], ...]
    pending: tuple[int, ...]
    environment: Mapping[str, str | None]


class SweepFolder:
    """Files of a sweep. The process that created the folder holds a lock, so other commands do not remove it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._owner: int | None = None

    @classmethod
    def create(cls, results: Path) -> SweepFolder:
        """Create a folder. Folders of earlier commands that have ended are removed.

        Raises:
            OSError: the folder cannot be created.
        """
        parent = results / PARENT
        parent.mkdir(parents=True, exist_ok=True)
        for old in parent.iterdir():
            if lock_is_free(old / "owner", missing=False):
                shutil.rmtree(old, ignore_errors=True)
        new = cls(Path(tempfile.mkdtemp(dir=parent)))
        new._owner = os.open(new.path / "owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(new._owner, fcntl.LOCK_EX)
        return new

    def remove(self) -> None:
        """Remove the folder, and its parent if that is empty."""
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    @property
    def log(self) -> Path:
        return self.path / "launch.log"

    def write_launch(self, launch: Launch) -> None:
        write_atomically(self.path / "launch.json", json.dumps(to_json(launch)))

    def read_launch(self) -> Launch:
        return from_json(Launch, json.loads((self.path / "launch.json").read_text(encoding="utf-8")))

    def write_answer(self, answer: CellAnswer) -> None:
        write_atomically(self.path / f"{answer.cell}.json", json.dumps(to_json(answer)))

    def read_answer(self, cell: int) -> CellAnswer | None:
        """Return the answer of a cell; None if there is none yet."""
        try:
            return from_json(CellAnswer, json.loads((self.path / f"{cell}.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def progress_file(self, cell: int) -> Path:
        return self.path / f"{cell}.progress"

    def write_waiting(self, reason: str) -> None:
        write_atomically(self.path / "waiting", reason)

    def read_waiting(self) -> str:
        """Return why the cluster does not start jobs; "" if nothing is known."""
        try:
            return (self.path / "waiting").read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def write_failure(self, reason: str) -> None:
        write_atomically(self.path / "failure", reason)

    def take_failure(self) -> str:
        """Return why the launcher failed, and remove the file; "" if it did not fail."""
        path = self.path / "failure"
        reason = path.read_text(encoding="utf-8") if path.exists() else ""
        path.unlink(missing_ok=True)
        return reason
