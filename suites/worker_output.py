"""Read what a worker writes while it runs: its log, and its lines of progress.

Output is read from pipes and bounded: a worker that prints without end costs neither memory nor disk space. A process
that outlives the worker and keeps a pipe open does not keep the parent waiting.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from suites.text import one_line

LOG_HEAD_BYTES = 512 * 1024
LOG_TAIL_BYTES = 256 * 1024
"""How much of the beginning and of the end of a log is kept."""

LOG_TAIL_LINES, LOG_LINE_CHARACTERS = 30, 500
"""How much of the log a record keeps."""

PROGRESS_BYTES = 64 * 1024
"""A longer line of progress is dropped."""

KEPT_LINES = 100
"""How many lines of progress of one worker may stay in the terminal or in a batch's output."""

BLOCK_BYTES = 1 << 16
LEFT_OVER_BYTES = 1 << 22
"""How much is read from a pipe after the worker ended, if another process still writes to it."""

JOIN_SECONDS = 3


class Reader:
    """A thread that passes on all that arrives at `descriptor`, and closes it in the end."""

    def __init__(self, descriptor: int, receive: Callable[[bytes], None]) -> None:
        self._descriptor, self._receive = descriptor, receive
        self._stop_reader, self._stop_writer = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Read what is left without waiting for more, and end the thread."""
        os.close(self._stop_writer)
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        left = LEFT_OVER_BYTES
        both = select.poll()
        for descriptor in (self._descriptor, self._stop_reader):
            both.register(descriptor, select.POLLIN)
        try:
            while left > 0:
                ready = [descriptor for descriptor, _ in both.poll()]
                stopping = self._stop_reader in ready
                if self._descriptor not in ready:
                    return
                block = os.read(self._descriptor, BLOCK_BYTES)
                if not block:
                    return
                self._receive(block)
                left -= len(block) if stopping else 0
        finally:
            os.close(self._descriptor)
            os.close(self._stop_reader)


class WorkerLog:
    """The log of a worker: a file with the beginning of its output, to which the last part is added at the end.

    A log that cannot be written, because the disk is full or its folder was removed, is kept in memory alone.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO | None = None
        with contextlib.suppress(OSError):
            self._file = path.open("wb", buffering=0)
        self._written = self._received = 0
        self._tail = bytearray()

    def add(self, block: bytes) -> None:
        """Take over the next part of the output."""
        self._received += len(block)
        self._tail += block
        if len(self._tail) > 2 * LOG_TAIL_BYTES:
            del self._tail[:-LOG_TAIL_BYTES]
        head = block[: LOG_HEAD_BYTES - self._written] if self._written < LOG_HEAD_BYTES else b""
        if head:
            self._written += len(head)
            self._write(head)

    def close(self) -> None:
        """Write the end of the output below its beginning."""
        rest = min(self._received - self._written, len(self._tail), LOG_TAIL_BYTES)
        left_out = self._received - self._written - rest
        if left_out:
            self._write(b"\n... %d bytes of output are left out ...\n" % left_out)
        if rest:
            self._write(bytes(self._tail[-rest:]))
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def tail(self) -> str:
        """The last lines of the output, with control characters as their codes."""
        text = bytes(self._tail[-LOG_TAIL_BYTES:]).decode(errors="replace")
        lines = text.splitlines()[-LOG_TAIL_LINES:]
        return "\n".join(one_line(line[:LOG_LINE_CHARACTERS]) for line in lines)

    def _write(self, data: bytes) -> None:
        if self._file is None:
            return
        try:
            self._file.write(data)
        except OSError:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


class ProgressLines:
    """Turns bytes into calls of `on_progress`; whatever is no line of progress is left out."""

    def __init__(self, on_progress: Callable[[str, bool], None]) -> None:
        self._on_progress = on_progress
        self._begun = b""
        self._dropping = False
        self._kept = 0

    def add(self, block: bytes) -> None:
        """Take over the next part of the stream."""
        *lines, begun = (self._begun + block).split(b"\n")
        for line in lines:
            if not self._dropping:
                self._line(line)
            self._dropping = False
        self._begun = begun if len(begun) <= PROGRESS_BYTES else b""
        self._dropping |= len(begun) > PROGRESS_BYTES

    def _line(self, line: bytes) -> None:
        try:
            said = json.loads(line)
            text, keep = said["text"], said["keep"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if isinstance(text, str):
            # The reader must go on, whatever happens to a terminal: the worker waits for a full pipe.
            self._kept += bool(keep)
            with contextlib.suppress(Exception):
                self._on_progress(one_line(text[:LOG_LINE_CHARACTERS]), bool(keep) and self._kept <= KEPT_LINES)
