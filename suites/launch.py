"""Spawn one stage in a worker process, bound its time, and read how it ended. The other side is suites/worker.py."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suites.record import FAILED, OUTCOMES, TIMEOUT

ROOT = Path(__file__).resolve().parent.parent
LOG_TAIL_LINES = 30
GRACE_SECONDS = 3


class CannotWrite(Exception):
    """A worker could not write its files: a full disk or a read-only folder."""


@dataclass(frozen=True)
class Interpreter:
    """A Python to run workers with: the path of the executable, and variables its libraries need."""

    python: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """How a stage ended: an outcome of suites/record.py, the reason where it is not ok, and what it returned."""

    outcome: str
    reason: str
    result: Any
    log_tail: str


def call(
    stage: str,
    job: Mapping[str, Any],
    folder: Path,
    interpreter: Interpreter,
    limit_s: float,
    on_progress: Callable[[str, bool], None],
) -> Answer:
    """Run `stage` on `job` in `folder` and wait for it, at most `limit_s` seconds.

    `on_progress` gets each line of progress, and whether it should stay where a person can read it.

    Raises:
        CannotWrite: the worker, or this process for it, could not write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "out.json").unlink(missing_ok=True)
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    log = folder / "log.txt"
    reader, writer = os.pipe()
    environment = {
        **os.environ,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUTF8": "1",  # libraries open files without naming an encoding
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **interpreter.environment,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "SUITES_PROGRESS_FD": str(writer),
        "SUITES_LAUNCHER": str(os.getpid()),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [interpreter.python, "-m", "suites.worker", stage, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            pass_fds=(writer,),
            start_new_session=True,
        )
    os.close(writer)
    listener = threading.Thread(target=_listen, args=(reader, on_progress), daemon=True)
    listener.start()
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return Answer(TIMEOUT, f"{stage} was stopped after {limit_s:g} s", None, _tail(log))
    finally:
        # Also on an interrupt: nothing of the worker's process group may outlive its cell.
        _end(process)
    listener.join(GRACE_SECONDS)
    if status == os.EX_IOERR:
        raise CannotWrite(f"{stage}: {(_tail(log).splitlines() or ['cannot write'])[-1]}")
    return _read(stage, folder, status, _tail(log))


def _read(stage: str, folder: Path, status: int, log_tail: str) -> Answer:
    """The worker's answer, or what its absence means."""
    try:
        data = json.loads((folder / "out.json").read_text(encoding="utf-8"))
        answer = Answer(data["outcome"], data["reason"], data["result"], log_tail)
    except FileNotFoundError:
        ended = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        last = next(reversed(log_tail.strip().splitlines()), "")
        return Answer(FAILED, f"{stage} {ended} without an answer{f': {last}' if last else ''}", None, log_tail)
    except (ValueError, KeyError, TypeError) as error:
        return Answer(FAILED, f"{stage} answered with something that is no answer: {error}", None, log_tail)
    if answer.outcome not in OUTCOMES:
        return Answer(FAILED, f"{stage} answered with the unknown outcome {answer.outcome!r}", None, log_tail)
    return answer


def _listen(reader: int, on_progress: Callable[[str, bool], None]) -> None:
    with os.fdopen(reader, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with contextlib.suppress(ValueError, KeyError):
                said = json.loads(line)
                on_progress(said["text"], said["keep"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the worker and all that it started: politely while it runs, then whatever of its group is left."""
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(line[:500] for line in lines[-LOG_TAIL_LINES:])


@contextlib.contextmanager
def holding(device: str, on_wait: Callable[[], None], shared: bool = False) -> Iterator[None]:
    """Hold the machine-wide lock of a device, a GPU's UUID or "cpu": whoever takes times is alone there, and whoever
    builds or judges outputs shares it with others who do."""
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    path = Path(tempfile.gettempdir()) / f"inference-suites-{device}.lock"
    with path.open("a", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, how | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(stream, how)
        yield
