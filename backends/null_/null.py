"""Null backend: a fake that runs no model, for tests of the pipeline and of the tables without a GPU.

`null.behaviour` makes it succeed, fail or give wrong output. Its output is a simple function of the token ids. The
reference is the same function, so wrong numbers are detected.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace

import numpy as np

from backends.base import Array, Artifact, Backend, BuildSpec, Feeds, Opening, Session, Source, Unavailable, Unsupported
from backends.compute_share import ComputeShare, current_share, limited_to
from backends.json_codec import from_json
from backends.null_.null_options import Behaviour, NullOptions
from backends.observed_calls import Around
from backends.stream import Event

HIDDEN = 8

UNITS = 16
"""Compute units of the simulated GPU."""

BUILT_SHARE = "built_share"
"""Note of a model that was built under a limit."""


def null_hidden(input_ids: Array) -> Array:
    """Return FP32 [batch, sequence, 8] from int32 ids [batch, sequence]: cosines of each id at eight frequencies."""
    return np.asarray(np.cos(input_ids[..., None] * (0.1 + np.arange(HIDDEN))), dtype=np.float32)


class Null(Backend):
    distributions = ("numpy",)

    def check(self, spec: BuildSpec) -> None:
        behaviour = spec.options_as(NullOptions).behaviour
        if behaviour is Behaviour.unsupported:
            raise Unsupported("null.behaviour=unsupported was requested")
        if behaviour is Behaviour.unavailable:
            raise Unavailable("null.behaviour=unavailable was requested")

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        limit = spec.build_limit
        return Artifact(source.checkpoint, source.sha256, notes={BUILT_SHARE: limit.share} if limit else {})

    def tactics(self, artifact: Artifact) -> tuple[str, ...]:
        return ("embeddings", f"encoder for {_built_share(artifact):.0%}")

    def divide(self, spec: BuildSpec, shares: Sequence[float]) -> tuple[ComputeShare, ...]:
        """Divide the simulated GPU, which has `UNITS` compute units."""
        if not spec.options_as(NullOptions).gpu_ms:
            raise Unsupported("the null backend has a simulated GPU only if null.gpu_ms is above 0; set it")
        return tuple(ComputeShare(math.ceil(share * UNITS), UNITS) for share in shares)

    @contextmanager
    def limit_process(self, spec: BuildSpec, share: float | None) -> Iterator[ComputeShare]:
        (part,) = self.divide(spec, (share or 1.0,))
        with limited_to(None if share is None else part):
            yield part

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        options = spec.options_as(NullOptions)
        share = current_share()
        costs = Costs(**{cost.name: getattr(options, cost.name) for cost in fields(Costs)}).limited(share)
        if share is not None and share.units != math.ceil(_built_share(artifact) * UNITS):
            costs = replace(costs, gpu_ms=options.untuned * costs.gpu_ms)
        factors = options.process_factors or [1.0]
        yield "open", NullSession(options.behaviour.name, costs.times(factors[spec.process % len(factors)]))


def _built_share(artifact: Artifact) -> float:
    """Return the share of the simulated GPU that the model was built for."""
    return from_json(float, artifact.notes.get(BUILT_SHARE, 1.0), BUILT_SHARE)


class NullEvent:
    def __init__(self, stream: NullStream) -> None:
        self._stream = stream
        self._at = 0.0

    def record(self) -> None:
        self._at = max(self._stream.host, self._stream.device)

    def reached(self) -> bool:
        return self._at <= self._stream.host

    def nanoseconds_since(self, earlier: Event) -> int:
        assert isinstance(earlier, NullEvent)
        return round(1e6 * (self._at - earlier._at))


class NullStream:
    """Simulated device queue with its own clock in ms, so that GPU times are known in advance.

    Work runs in the order in which it is enqueued. Only `spend` and `work` advance the clock.
    """

    def __init__(self) -> None:
        self.host = self.device = 0.0

    def event(self) -> NullEvent:
        return NullEvent(self)

    def work(self, milliseconds: float) -> None:
        """Enqueue work for the device."""
        self.device = max(self.host, self.device) + milliseconds

    def spend(self, milliseconds: float) -> None:
        """Spend time on the host."""
        self.host += milliseconds
        _spend(milliseconds)

    def synchronize(self) -> None:
        self.spend(max(0.0, self.device - self.host))

    def occupy(self, nanoseconds: int) -> None:
        self.work(nanoseconds / 1e6)

    def free_memory(self) -> int:
        return 1 << 30


@dataclass(frozen=True)
class Costs:
    """Costs of the null backend in milliseconds of host time; `gpu_ms` and `first_gpu_ms` are device time.

    Attributes:
        step_ms: each step.
        gpu_ms: each step on a simulated GPU, which starts it after the host part; 0 for no GPU.
        copy_ms: each copy of inputs; on the device if there is one.
        shape_ms: a change of shape.
        profile_ms: extra cost of a change of profile.
        first_ms, first_gpu_ms: extra cost of the first step after a change of shape.
        cold_ms: extra cost of the first step of the process at a shape.
        capture_ms: the capture of a graph. Later steps then cost only `gpu_ms`.
        python_ms: the part of `step_ms` outside of the simulated library call.
        other: costs that replace one of the above, e.g. `step_ms 2x16` for a shape, or `shape_ms 1x16 2x16` for an
            ordered pair of shapes.
        profile_of: number of the profile of a shape, by shape as `2x16`; 0 for a shape that is not listed.
    """

    step_ms: float = 0.0
    gpu_ms: float = 0.0
    copy_ms: float = 0.0
    shape_ms: float = 0.0
    profile_ms: float = 0.0
    first_ms: float = 0.0
    first_gpu_ms: float = 0.0
    cold_ms: float = 0.0
    capture_ms: float = 0.0
    python_ms: float = 0.0
    other: Mapping[str, float] = field(default_factory=dict)
    profile_of: Mapping[str, int] = field(default_factory=dict)

    def times(self, factor: float) -> Costs:
        """Return all costs multiplied by `factor`, for a slower process (null.process_factors)."""
        scaled = {cost.name: factor * getattr(self, cost.name) for cost in fields(self) if cost.name.endswith("_ms")}
        return replace(self, **scaled, other={name: factor * cost for name, cost in self.other.items()})

    def limited(self, share: ComputeShare | None) -> Costs:
        """Return the costs with `gpu_ms` multiplied, as if a step used all compute units of the device."""
        factor = 1.0 if share is None else share.total / share.units
        other = {name: cost * (factor if name.startswith("gpu_ms ") else 1.0) for name, cost in self.other.items()}
        return replace(self, gpu_ms=factor * self.gpu_ms, other=other)

    def of(self, name: str, shape: str, before: str = "") -> float:
        """Return the cost `name` in ms at `shape`, or of a change from the shape `before` to `shape`."""
        usual: float = self.other.get(f"{name} {shape}", getattr(self, name))
        return self.other.get(f"{name} {before} {shape}", usual)


class NullSession(Session):
    """Session of the null backend. It spends the configured time and computes `null_hidden`."""

    def __init__(self, behaviour: str, costs: Costs) -> None:
        self._behaviour = behaviour
        self._costs = costs
        self._null_stream = NullStream()
        self._ids: Array = np.zeros((0, 0), np.int32)
        self._output: Array = null_hidden(self._ids)
        self._shape = ""
        self._due, self._due_gpu = 0.0, 0.0
        self._seen: set[str] = set()
        self._sizes: tuple[int, ...] = ()
        self._around: Around = _call
        if costs.gpu_ms:
            self.stream = self._null_stream

    def _sizes_of(self, feeds: Feeds) -> tuple[int, ...]:
        """Return the key under which a graph is kept."""
        return tuple(feeds["input_ids"].shape)

    def changing(self, feeds: Feeds) -> Iterator[str]:
        sizes, before = self._sizes_of(feeds), self._shape
        self._shape = "x".join(map(str, feeds["input_ids"].shape))
        self.graphs.select(sizes)
        if sizes == self._sizes:
            yield "set shape"
            return
        self._sizes = sizes
        if not self.replays:
            if self._costs.profile_of.get(before, 0) != self._costs.profile_of.get(self._shape, 0):
                self._null_stream.spend(self._costs.profile_ms)
                yield "profile"
            self._null_stream.spend(self._costs.of("shape_ms", self._shape, before))
            self._due = self._costs.of("first_ms", self._shape, before)
            self._due_gpu = self._costs.of("first_gpu_ms", self._shape, before)
        if self._shape not in self._seen:
            self._seen.add(self._shape)
            self._due += self._costs.cold_ms
        yield "set shape"

    def copy_in(self, feeds: Feeds) -> None:
        self._ids = feeds["input_ids"]
        (self._null_stream.work if self.stream else self._null_stream.spend)(self._costs.copy_ms)

    def step(self) -> None:
        if self._behaviour == "raise":
            raise ValueError("null.behaviour=raise was requested")
        if self._behaviour == "abort":
            os.kill(os.getpid(), signal.SIGABRT)
        if self._behaviour == "exit":
            os._exit(0)
        if self._behaviour == "hang":
            time.sleep(3600)
        if not self.replays and (python := self._costs.of("python_ms", self._shape)):
            self._null_stream.spend(python)
        self._around(self._library_call)
        self._due = self._due_gpu = 0.0
        self._output = null_hidden(self._ids)
        if self._behaviour == "nonfinite":
            self._output[0, 0, 0] = np.nan
        if self._behaviour == "garbage":
            self._output = np.random.default_rng(0).standard_normal(self._output.shape, np.float32)

    def _library_call(self) -> None:
        if not self.replays:
            step, python = (self._costs.of(name, self._shape) for name in ("step_ms", "python_ms"))
            self._null_stream.spend(max(0.0, step - python) + self._due)
        if self.stream:
            self._null_stream.work(self._costs.of("gpu_ms", self._shape) + self._due_gpu)

    @contextmanager
    def observed(self, around: Around) -> Iterator[bool]:
        self._around = around
        try:
            yield True
        finally:
            self._around = _call

    def wait(self) -> None:
        self._null_stream.synchronize()

    def fetch(self) -> Array:
        self.wait()
        return self._output

    def capture(self) -> None:
        if self.stream is None:
            raise Unsupported("the null backend has CUDA graphs only if null.gpu_ms is above 0; set it")
        self._null_stream.spend(self._costs.of("capture_ms", self._shape))
        self.graphs.add(True)


def _call(call: Callable[[], object]) -> object:
    return call()


def _spend(milliseconds: float) -> None:
    if milliseconds:
        time.sleep(milliseconds / 1e3)
