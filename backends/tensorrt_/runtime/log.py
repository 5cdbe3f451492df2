"""TensorRT's log. Warnings and errors are kept for the record; all but verbose messages go to the worker's log file."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi

if TYPE_CHECKING:
    import tensorrt as trt

    Severity: TypeAlias = trt.ILogger.Severity

PARSING = re.compile(r"Parsing node: (.*)")
ENGINE_LAYERS = "Layers:"
"""Start of the message that lists the layers of a built engine, one a line."""

PEAK = re.compile(r"Peak memory usage of TRT CPU/GPU memory allocators: CPU (\d+) MiB, GPU (\d+) MiB")


class Log:
    """Messages of TensorRT at warning level and above, the node that the ONNX parser read last, and peak memory.

    Attributes:
        logger: the trt.ILogger that adds messages. TensorRT's objects get it when they are made.
        listener: called with each message, from any thread; None for no listener.
        layers: layers of the engine that was built last, in the words of the builder's verbose log.
        peak_bytes: peak device memory of TensorRT's own allocators, as TensorRT reports it.
    """

    def __init__(self, api: TensorRTApi) -> None:
        self._api = api
        self.logger = _logger(api, self)
        self._counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self.last_node = ""
        self.peak_bytes = 0
        self.layers: list[str] = []
        self.listener: Callable[[str], None] | None = None

    def add(self, severity: trt.ILogger.Severity, message: str) -> None:
        """Add a message."""
        trt = self._api.trt
        if self.listener is not None:
            self.listener(message)
        if severity == trt.ILogger.VERBOSE:
            if message.startswith(ENGINE_LAYERS):
                self.layers = message.splitlines()[1:]
            if parsing := PARSING.search(message):
                self.last_node = parsing.group(1)
            return
        print(f"{severity.name}: {message}", file=sys.stderr, flush=True)
        if peak := PEAK.search(message):
            self.peak_bytes = max(self.peak_bytes, int(peak.group(2)) << 20)
        if severity == trt.ILogger.INFO:
            return
        self._counts[f"{severity.name}: {message[:300]}"] += 1
        if severity != trt.ILogger.WARNING:
            self.errors.append(message)

    def last_error(self) -> str:
        """Return the last error in one line."""
        return " ".join(self.errors[-1].split()) if self.errors else "TensorRT gave no reason"

    def lines(self, most: int = 30) -> list[str]:
        """Return the first `most` different messages, each with its count if it occurred more than once."""
        lines = [line if count == 1 else f"{line} ({count} times)" for line, count in self._counts.items()]
        return lines[:most] + ([f"and {len(lines) - most} more"] if len(lines) > most else [])


def _logger(api: TensorRTApi, log: Log) -> trt.ILogger:
    trt = api.trt

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Logger whose messages go to `log`. TensorRT calls it from any thread."""

        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Severity, message: str) -> None:
            log.add(severity, message)

    return Logger()
