"""A backend that runs no model: the suite's own fake, for testing a pipeline or a table without a GPU.

It succeeds, fails or lies on demand. Its output is a simple function of the token ids, which is also its
reference, so that wrong numbers are seen to be wrong.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, fields

import numpy as np

from backends.base import Array, Artifact, Backend, BuildSpec, Event, Feeds, Session, Source, Unavailable, Unsupported

HIDDEN = 8


def null_hidden(input_ids: Array) -> Array:
    """FP32 [batch, sequence, 8] from int32 ids [batch, sequence]: cosines of the id at eight frequencies."""
    return np.asarray(np.cos(input_ids[..., None] * (0.1 + np.arange(HIDDEN))), dtype=np.float32)


class Null(Backend):
    distributions = ("numpy",)

    def check(self, spec: BuildSpec) -> None:
        if spec.options["behaviour"] == "unsupported":
            raise Unsupported("null.behaviour=unsupported was asked for")
        if spec.options["behaviour"] == "unavailable":
            raise Unavailable("null.behaviour=unavailable was asked for")

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        return Artifact(source.checkpoint, source.sha256)

    def open(self, spec: BuildSpec, artifact: Artifact) -> NullSession:
        costs = {field.name: spec.options[field.name] for field in fields(Costs)}
        return NullSession(spec.options["behaviour"], Costs(**costs))


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


@dataclass(frozen=True)
class Costs:
    """Milliseconds of host time, but for `gpu_ms`.

    Attributes:
        step_ms: each step.
        gpu_ms: each step, on a pretended GPU; without it there is none.
        shape_ms: making ready for another shape.
        first_ms: the first step after that, besides.
        cold_ms: the first step ever at a shape, besides.
        capture_ms: capturing a graph, whose steps then take `gpu_ms` alone.
    """

    step_ms: float = 0.0
    gpu_ms: float = 0.0
    shape_ms: float = 0.0
    first_ms: float = 0.0
    cold_ms: float = 0.0
    capture_ms: float = 0.0


class NullSession(Session):
    """Takes the time it was told to take, and computes next to nothing."""

    def __init__(self, behaviour: str, costs: Costs) -> None:
        self._behaviour = behaviour
        self._costs = costs
        self._null_stream = NullStream()
        self._ids: Array = np.zeros((0, 0), np.int32)
        self._output: Array = null_hidden(self._ids)
        self._due = 0.0
        self._seen: set[tuple[int, ...]] = set()
        self._replays = False
        self._kept: set[tuple[int, ...]] = set()
        if costs.gpu_ms:
            self.stream = self._null_stream

    def set_shape(self, feeds: Feeds) -> None:
        shape = feeds["input_ids"].shape
        if shape == self._ids.shape:
            return
        self._replays = self.remembers and shape in self._kept
        if not self._replays:
            _spend(self._costs.shape_ms)
            self._due = self._costs.first_ms
        if shape not in self._seen:
            self._seen.add(shape)
            self._due += self._costs.cold_ms

    def copy_in(self, feeds: Feeds) -> None:
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
        _spend(self._costs.gpu_ms if self._replays else self._costs.step_ms + self._due)
        self._due = 0.0
        self._null_stream.now += round(self._costs.gpu_ms * 1e6)
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
        _spend(self._costs.capture_ms)
        self._replays = True
        if self.remembers:
            self._kept.add(self._ids.shape)


def _spend(milliseconds: float) -> None:
    if milliseconds:
        time.sleep(milliseconds / 1e3)
