"""Run one stage in a worker process with a time limit, and read its answer. The other side is suites/worker.py."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

import suites
from backends.json_codec import from_json, to_json
from suites.records.record import CANNOT_WRITE, FAILED, OK, OUTCOMES, TIMEOUT
from suites.records.suite_version import CODE
from suites.root import ROOT
from suites.running.job import A, Job
from suites.running.process_tree import CALL, Guard, kill_group, kill_marked
from suites.running.worker_output import ProgressLines, Reader, WorkerLog
from suites.text import one_line

GRACE_SECONDS = 3
FREE_BYTES = 1 << 16
"""A disk with less free space counts as full. A stage that fails on a full disk may have failed for that reason."""

_calls = itertools.count()


class CannotWrite(Exception):
    """A worker could not write its files: the disk is full or the folder is read-only."""


class CannotStart(Exception):
    """The interpreter of a worker cannot be run. The message has its path and the reason."""


@dataclass(frozen=True)
class Interpreter:
    """Python for workers: the path of its executable, and environment variables that its libraries need."""

    python: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer(Generic[A]):
    """Answer of a stage.

    Attributes:
        outcome: one of the outcomes in suites/records/record.py.
        reason: one line; empty if the outcome is `ok`.
        result: result of the stage; None if the outcome is not `ok`.
        log_tail: last lines of the worker's output.
    """

    outcome: str
    reason: str
    result: A | None
    log_tail: str


def call(
    job: Job[A],
    folder: Path,
    interpreter: Interpreter,
    limit_s: float,
    on_progress: Callable[[str, bool], None],
) -> Answer[A]:
    """Run the stage of `job` in `folder` and wait for it, at most `limit_s` seconds.

    `on_progress` is called with each line of progress, and whether the line should stay visible.

    Raises:
        CannotWrite: the worker could not write, or failed on a full disk.
        CannotStart: the interpreter cannot be run.
        OSError: the job could not be written.
    """
    return WorkerProcess(job, folder, interpreter, on_progress).finish(job, limit_s)


class WorkerProcess:
    """Worker of one stage, which has started. It runs until `finish` or `end` is called. Other errors are as in `call`.

    Args:
        inherited: open descriptor that the worker inherits. Such a worker waits for `send`.
    """

    def __init__(
        self,
        job: Job[A],
        folder: Path,
        interpreter: Interpreter,
        on_progress: Callable[[str, bool], None],
        inherited: int | None = None,
    ) -> None:
        self._folder, self._temporary, self._ended = folder, folder / "tmp", False
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "out.json").unlink(missing_ok=True)
        (folder / "job.json").write_text(json.dumps(to_json(job)), encoding="utf-8")
        self._temporary.mkdir(exist_ok=True)
        self._mark = f"{Guard.start()}-{next(_calls)}"
        self._log = WorkerLog(folder / "log.txt")
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: list[Reader] = []
        command = [interpreter.python, "-m", "suites.worker", job.stage, str(folder)]
        receivers = (self._log.add, ProgressLines(on_progress).add)
        try:
            environment = _environment(folder, interpreter, self._mark)
            self._process, self._readers = _spawn(command, environment, receivers, inherited)
        except BaseException:
            self.end()
            raise

    def send(self) -> None:
        """Send a line to a worker that waits for it. A worker that has ended does not get it."""
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stream:
            stream.write(b"\n")

    def finish(self, job: Job[A], limit_s: float) -> Answer[A]:
        """Wait for the worker, at most `limit_s` seconds, and return its answer to `job`."""
        assert self._process is not None
        try:
            status: int | None = self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            self.end()  # also on an interrupt
        if status is None:
            return Answer(TIMEOUT, f"{job.stage} was stopped after {limit_s:g} s", None, self._log.tail())
        if status == os.EX_IOERR:
            raise CannotWrite(f"{job.stage}: {(self._log.tail().splitlines() or ['cannot write'])[-1]}")
        answer = _read(job, self._folder, status, self._log.tail())
        if answer.outcome == FAILED:
            _check_space(job.stage, self._folder)
        return answer

    def end(self) -> None:
        """End the worker and all processes that it started: none of them may outlive the cell. Do it once."""
        if self._ended:
            return
        self._ended = True  # later, another process may have its id
        try:
            if self._process is not None:
                _end(self._process)
                if self._process.stdin is not None:
                    self._process.stdin.close()
        finally:
            kill_marked(self._mark)
            for reader in self._readers:
                reader.finish()
            self._log.close()
            shutil.rmtree(self._temporary, ignore_errors=True)


def code_folder(folder: Path) -> Path:
    """Return a folder with the packages suites and backends and no other package.

    An installed copy is in a folder with other packages of this interpreter. In PYTHONPATH they would hide the packages
    of the worker's interpreter. So the job's folder gets links to the two packages.
    """
    if not any(ROOT.glob("*.dist-info")):
        return ROOT
    code = folder / "code"
    code.mkdir(exist_ok=True)
    for name in CODE:
        with contextlib.suppress(FileExistsError):
            (code / name).symlink_to(ROOT / name)
    return code


def _environment(folder: Path, interpreter: Interpreter, mark: str) -> dict[str, str]:
    return {
        **os.environ,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUTF8": "1",  # libraries open files without naming an encoding
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Files that a killed worker did not remove are removed with the folder.
        "TMPDIR": str(folder / "tmp"),
        **interpreter.environment,
        # Absolute, because the worker runs in another folder.
        "INFERENCE_SUITES_PATH": os.pathsep.join(os.path.dirname(folder) for folder in suites.__path__[1:]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(code_folder(folder)), os.environ.get("PYTHONPATH", "")])),
        "SUITES_LAUNCHER": str(os.getpid()),
        CALL: mark,
    }


def _spawn(
    command: Sequence[str],
    environment: Mapping[str, str],
    receivers: tuple[Callable[[bytes], None], Callable[[bytes], None]],
    inherited: int | None,
) -> tuple[subprocess.Popen[bytes], list[Reader]]:
    """Start the worker in its folder, the last word of `command`, and the threads that read its output and progress.

    Raises:
        CannotStart: the interpreter cannot be run.
    """
    progress_reader, progress_writer = os.pipe()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if inherited is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=command[-1],
            env={**environment, "SUITES_PROGRESS_FD": str(progress_writer)},
            pass_fds=[descriptor for descriptor in (progress_writer, inherited) if descriptor is not None],
            start_new_session=True,
        )
    except OSError as error:
        os.close(progress_reader)
        raise CannotStart(why_not_started(command[0], error)) from None
    finally:
        os.close(progress_writer)
    assert process.stdout is not None
    output = os.dup(process.stdout.fileno())
    process.stdout.close()
    return process, [Reader(output, receivers[0]), Reader(progress_reader, receivers[1])]


def why_not_started(python: str, error: OSError) -> str:
    """Return one line why an interpreter cannot be started."""
    if error.errno == errno.ENOENT and os.path.exists(python):
        return f"{python} cannot be started: the program that its first line names is missing"
    if error.errno == errno.ENOEXEC:
        return f"{python} cannot be started: it is neither a program of this machine nor a script that begins with #!"
    return f"{python} cannot be started: {error.strerror}"


def _check_space(stage: str, folder: Path) -> None:
    """Raise CannotWrite if the disk of `folder` is full."""
    probe = folder / "space"
    try:
        probe.write_bytes(b"0" * FREE_BYTES)
        probe.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
        if error.errno in CANNOT_WRITE:
            raise CannotWrite(f"{stage} failed, and {folder} cannot be written: {error.strerror}") from None


def read_answer(job: Job[A], data: Mapping[str, object], log_tail: str) -> Answer[A]:
    """Return the answer in the JSON of out.json.

    Raises:
        ValueError, KeyError, TypeError: the JSON is not an answer to this job.
    """
    outcome, reason, result = data["outcome"], data["reason"], data["result"]
    if not isinstance(reason, str) or not isinstance(outcome, str) or outcome not in OUTCOMES:
        raise ValueError(f"the outcome {outcome!r} is unknown")
    answer: A | None = from_json(job.answer_type(), result, "result") if outcome == OK else None
    return Answer(outcome, one_line(reason), answer, log_tail)


def _read(job: Job[A], folder: Path, status: int, log_tail: str) -> Answer[A]:
    """Return the worker's answer, or a failure if there is none."""
    stage = job.stage
    try:
        return read_answer(job, json.loads((folder / "out.json").read_bytes()), log_tail)
    except (FileNotFoundError, NotADirectoryError):
        ended = _how_it_ended(status)
        if not folder.is_dir():
            return Answer(FAILED, f"{stage} {ended}: its folder in cache= was removed meanwhile", None, log_tail)
        last = next(reversed(log_tail.strip().splitlines()), "").strip()
        return Answer(FAILED, f"{stage} {ended} without an answer{f': {last}' if last else ''}", None, log_tail)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return Answer(FAILED, f"{stage} wrote an answer that cannot be read: {error}", None, log_tail)


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-status}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the worker and its process group: first by SIGTERM, then the remaining processes by SIGKILL."""
    try:
        if process.poll() is None:
            kill_group(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
    finally:
        # The group must be ended even if a second interrupt ends the wait.
        kill_group(process.pid, signal.SIGKILL)
    process.wait()
