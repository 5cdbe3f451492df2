"""A backend that runs no model: the suite's own fake, for testing a pipeline or a table without a GPU.

It succeeds, fails or lies on demand. Its output is a simple function of the token ids, which is also its
reference, so that wrong numbers are seen to be wrong.
"""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from backends.base import Array, Artifact, Backend, BuildSpec, Event, Feeds, Session, Source, Unavailable, Unsupported

HIDDEN = 8


def null_hidden(input_ids: Array) -> Array:
    """FP32 [batch, sequence, 8] from int32 ids [batch, sequence]: cosines of the id at eight frequencies."""
    return np.asarray(np.cos(input_ids[..., None] * (0.1 + np.arange(HIDDEN))), dtype=np.float32)


class Null(Backend):
    packages = ("numpy",)

    def check(self, spec: BuildSpec) -> None:
        if spec.options["behaviour"] == "unsupported":
            raise Unsupported("null.behaviour=unsupported was asked for")
        if spec.options["behaviour"] == "unavailable":
            raise Unavailable("null.behaviour=unavailable was asked for")

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        return Artifact(source.checkpoint, source.sha256)

    def open(self, spec: BuildSpec, artifact: Artifact) -> NullSession:
        return NullSession(spec.options["behaviour"], spec.options["step_ms"], spec.options["gpu_ms"])


class NullEvent:
    def __init__(self, stream: NullStream) -> None:
        self._stream = stream
        self.at = 0

    def record(self) -> None:
        self.at = self._stream.now

    def nanoseconds_since(self, earlier: Event) -> int:
        assert isinstance(earlier, NullEvent)
        return self.at - earlier.at


class NullStream:
    """A stream on a clock of its own, moved by the session: GPU times that are known beforehand."""

    def __init__(self) -> None:
        self.now = 0

    def event(self) -> NullEvent:
        return NullEvent(self)

    def synchronize(self) -> None:
        pass


class NullSession(Session):
    """Takes `step_ms` of host time a step and, where `gpu_ms` is not 0, that much time on a pretended GPU."""

    def __init__(self, behaviour: str, step_ms: float, gpu_ms: float) -> None:
        self._behaviour = behaviour
        self._step_seconds = step_ms / 1e3
        self._gpu_nanoseconds = round(gpu_ms * 1e6)
        self._null_stream = NullStream()
        self._ids: Array = np.zeros((1, 1), np.int32)
        self._output: Array = null_hidden(self._ids)
        if gpu_ms:
            self.stream = self._null_stream

    def load(self, feeds: Feeds) -> None:
        self._ids = feeds["input_ids"]

    def step(self) -> None:
        if self._behaviour == "raise":
            raise ValueError("null.behaviour=raise was asked for")
        if self._behaviour == "abort":
            os.kill(os.getpid(), signal.SIGABRT)
        if self._behaviour == "exit":
            os._exit(0)
        if self._behaviour == "hang":
            time.sleep(3600)
        time.sleep(self._step_seconds)
        self._null_stream.now += self._gpu_nanoseconds
        self._output = null_hidden(self._ids)
        if self._behaviour == "nonfinite":
            self._output[0, 0, 0] = np.nan
        if self._behaviour == "garbage":
            self._output = np.random.default_rng(0).standard_normal(self._output.shape, np.float32)

    def wait(self) -> None:
        pass

    def fetch(self) -> Array:
        return self._output

    def capture(self) -> None:
        if self.stream is None:
            raise Unsupported("null has CUDA graphs only where null.gpu_ms is set")
