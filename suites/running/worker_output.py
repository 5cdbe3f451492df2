"""Read the log and the lines of progress of a worker while it runs.

Output is read from pipes and its size is limited: a worker that prints without end fills neither memory nor disk. The
parent does not wait for a process that outlives the worker and keeps a pipe open.
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
"""Bytes that are kept of the beginning and of the end of a log."""

LOG_TAIL_LINES, LOG_LINE_CHARACTERS = 30, 500
"""Lines of the log that a record keeps, and characters of each line."""

PROGRESS_BYTES = 64 * 1024
"""Longest line of progress. A longer line is dropped."""

KEPT_LINES = 100
"""Lines of progress of one worker that may stay visible in the terminal or in a log file."""

BLOCK_BYTES = 1 << 16
LEFT_OVER_BYTES = 1 << 22
"""Bytes that are read from a pipe after the worker ended, if another process still writes to it."""

JOIN_SECONDS = 3


class Reader:
    """Thread that reads `descriptor` until its end, passes each block to `receive`, and closes the descriptor."""

    def __init__(self, descriptor: int, receive: Callable[[bytes], None]) -> None:
        self._descriptor, self._receive = descriptor, receive
        self._stop_reader, self._stop_writer = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Read the remaining output without waiting for more, and end the thread."""
        os.close(self._stop_writer)
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        remaining = LEFT_OVER_BYTES
        poller = select.poll()
        for descriptor in (self._descriptor, self._stop_reader):
            poller.register(descriptor, select.POLLIN)
        try:
            while remaining > 0:
                ready = [descriptor for descriptor, _ in poller.poll()]
                stopping = self._stop_reader in ready
                if self._descriptor not in ready:
                    return
                block = os.read(self._descriptor, BLOCK_BYTES)
                if not block:
                    return
                self._receive(block)
                remaining -= len(block) if stopping else 0
        finally:
            os.close(self._descriptor)
            os.close(self._stop_reader)


class WorkerLog:
    """Log of a worker: a file with the first and the last part of its output.

    If the file cannot be written, because the disk is full or the folder was removed, the last part is kept in memory.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO | None = None
        with contextlib.suppress(OSError):
            self._file = path.open("wb", buffering=0)
        self._written = self._received = 0
        self._tail = bytearray()

    def add(self, block: bytes) -> None:
        """Add the next block of the output."""
        self._received += len(block)
        self._tail += block
        if len(self._tail) > 2 * LOG_TAIL_BYTES:
            del self._tail[:-LOG_TAIL_BYTES]
        head = block[: LOG_HEAD_BYTES - self._written] if self._written < LOG_HEAD_BYTES else b""
        if head:
            self._written += len(head)
            self._write(head)

    def close(self) -> None:
        """Write the last part of the output below the first part."""
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
        """Return the last lines of the output, with control characters as their codes."""
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
    """Parser of lines of progress. It calls `on_progress` for each valid line and skips all other lines."""

    def __init__(self, on_progress: Callable[[str, bool], None]) -> None:
        self._on_progress = on_progress
        self._begun = b""
        self._dropping = False
        self._kept = 0

    def add(self, block: bytes) -> None:
        """Parse the next block of the stream."""
        *lines, unfinished = (self._begun + block).split(b"\n")
        for line in lines:
            if not self._dropping:
                self._line(line)
            self._dropping = False
        self._begun = unfinished if len(unfinished) <= PROGRESS_BYTES else b""
        self._dropping |= len(unfinished) > PROGRESS_BYTES

    def _line(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            text, keep = message["text"], message["keep"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if isinstance(text, str):
            # An error of the terminal must not stop the reader: a worker waits when its pipe is full.
            self._kept += bool(keep)
            with contextlib.suppress(Exception):
                self._on_progress(one_line(text[:LOG_LINE_CHARACTERS]), bool(keep) and self._kept <= KEPT_LINES)
