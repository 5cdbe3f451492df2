"""A worker that is a process of its own: batches go to it, and their times come back, as lines of JSON on a socket.

All processes read the same clock (see suites/measuring/clock.py), so the times need no conversion.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

from suites.measuring.clock import Clock, HostClock
from suites.serving.arrivals import Arrived
from suites.serving.worker_pool import WorkerPool
from suites.serving.workers import Finished, Runner

POLL_S = 0.2
"""Seconds between two looks at a process that has not connected yet."""


@dataclass
class ProcessRunner:
    """Runner in another process."""

    lines: TextIO
    clock: Clock = field(default_factory=HostClock)

    def run(self, batch: Sequence[Arrived]) -> list[Finished]:
        """
        Raises:
            RuntimeError: the process has ended.
        """
        try:
            self.lines.write(json.dumps(batch) + "\n")
            self.lines.flush()
            answer = self.lines.readline()
        except OSError:
            answer = ""
        if not answer:
            raise RuntimeError("a process of the pool has ended; its messages are in the log")
        finished, first = list[Finished](), 0
        for count, *values in json.loads(answer):
            finished.append(Finished(batch[first : first + count], *values))
            first += count
        return finished


@contextmanager
def short_path(path: str) -> Iterator[str]:
    """Yield another path of a file: Linux allows at most 107 bytes for the address of a socket."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


@contextmanager
def process_runner(start: Callable[[str], None]) -> Iterator[ProcessRunner]:
    """Start a process, wait for its connection, and end it at the exit.

    Args:
        start: runs the process, which calls `serve_batches` with the path of the socket. Returns at its end.

    Raises:
        RuntimeError: the process ended without a connection.
    """
    with TemporaryDirectory(prefix="pool_") as folder, socket.socket(socket.AF_UNIX) as listener:
        path, errors = str(Path(folder) / "batches"), list[Exception]()
        with short_path(path) as address:
            listener.bind(address)
        listener.listen(1)
        listener.settimeout(POLL_S)

        def work() -> None:
            try:
                start(path)
            except Exception as error:  # raised in the thread of the pool, below
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        connection: socket.socket | None = None
        while connection is None:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if not thread.is_alive():
                    raise errors[0] if errors else RuntimeError("a process of the pool ended early") from None
        connection.settimeout(None)
        with connection, connection.makefile("rw", encoding="utf-8") as lines:
            yield ProcessRunner(lines)
            connection.shutdown(socket.SHUT_WR)
        thread.join()


def process_pool(count: int, start: Callable[[str], None]) -> WorkerPool:
    """Return a pool of processes; see `process_runner`."""
    return WorkerPool(count, lambda number: process_runner(start))


def serve_batches(path: str, runner: Runner) -> None:
    """Run the batches that arrive on a socket, until its other end is closed."""
    with socket.socket(socket.AF_UNIX) as connection:
        with short_path(path) as address:
            connection.connect(address)
        with connection.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                batch = [Arrived(at, text) for at, text in json.loads(line)]
                answers = [(len(finished.batch), *astuple(finished)[1:]) for finished in runner.run(batch)]
                lines.write(json.dumps(answers) + "\n")
                lines.flush()
