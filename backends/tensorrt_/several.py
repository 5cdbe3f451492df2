"""From plans to a session: one context for all profiles, one a profile, or one for each of several engines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import tensorrt as trt

from backends.base import Array, Artifact, BuildSpec, Feeds, Session, Shape
from backends.cache import digest_of
from backends.cuda import CudaStream, free_memory, use_device
from backends.tensorrt_.layout import Layout
from backends.tensorrt_.log import Log
from backends.tensorrt_.profiles import choose
from backends.tensorrt_.session import LoadedPlan, TensorRTSession, verified


class SeveralContexts(Session):
    """Sessions with profiles of their own behind one; they share a stream, so that a change waits for nothing."""

    def __init__(self, sessions: Sequence[TensorRTSession]) -> None:
        self._sessions = sessions
        self._current = sessions[0]
        owned = [(session, profile) for session in sessions for profile in session.profiles]
        self._owners, self._profiles = [session for session, _ in owned], [profile for _, profile in owned]
        self.stream = sessions[0].stream

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    @property
    def replays(self) -> bool:  # type: ignore[override]  # read alone
        return self._current.replays

    def _step_plainly(self) -> None:
        for session in self._sessions:
            session.remembers = False

    def set_shape(self, feeds: Feeds) -> None:
        for _ in self.changing(feeds):
            pass

    def changing(self, feeds: Feeds) -> Iterator[str]:
        self._current = self._owners[choose(self._profiles, Shape(*feeds["input_ids"].shape))]
        if self.remembers:
            self._current.remembers = True
        yield "context"
        yield from self._current.changing(feeds)

    def copy_in(self, feeds: Feeds) -> None:
        self._current.copy_in(feeds)

    def step(self) -> None:
        self._current.step()

    def wait(self) -> None:
        self._current.wait()

    def fetch(self) -> Array:
        return self._current.fetch()

    def capture(self) -> None:
        self._current.capture()


def opening(spec: BuildSpec, artifact: Artifact, layout: Layout | None = None) -> Iterator[tuple[str, Session | None]]:
    """See Backend.opening; `artifact` is a plan, or the list of several that backends/tensorrt_/engine.py writes.

    Raises:
        RuntimeError: a plan is not the one that was built here, or the contexts want more memory than there is.
    """
    use_device(spec.device.index)
    allowed = min(free_memory(), (spec.options.get("memory_mb") or 1 << 30) << 20)
    yield "device", None
    trt.init_libnvinfer_plugins(Log(), "")
    yield "plugins", None
    each = spec.options.get("contexts", "one") == "per_profile"
    plans = []
    for one in _artifacts(spec, artifact):
        read = verified(one)
        yield "read and verify", None
        plans.append(LoadedPlan(spec, read, layout))
        yield "deserialize", None
    wanted = [(plan, only) for plan in plans for only in _shares(len(plan.profiles), each)]
    stream = CudaStream(spec.device.index)
    _check_memory(plans, wanted, allowed)
    sessions: list[TensorRTSession] = []
    took: list[int] = []
    for number, (plan, only) in enumerate(wanted, 1):
        free = free_memory()
        sessions.append(TensorRTSession(plan, stream, only))
        took.append(free - free_memory())
        # The first may bring what all share, the second tells what each takes.
        if len(took) == min(2, len(wanted)):
            _check_memory(plans, wanted, allowed, took)
        yield f"context {number}", None
    for session in sessions:
        session.allocate()
    yield "buffers", sessions[0] if len(sessions) == 1 else SeveralContexts(sessions)


def _shares(profiles: int, each: bool) -> list[list[int]]:
    """The profiles of each context, by index."""
    return [[index] for index in range(profiles)] if each else [list(range(profiles))]


def _artifacts(spec: BuildSpec, artifact: Artifact) -> list[Artifact]:
    if artifact.path.suffix != ".json":
        return [artifact]
    if digest_of(artifact.path) != artifact.sha256:
        raise RuntimeError("the list of plans is not the one that was made here; run the cell again to have it remade")
    listed = json.loads(artifact.path.read_text(encoding="utf-8"))
    return [Artifact(spec.cache / plan["path"], plan["sha256"]) for plan in listed]


def _check_memory(
    plans: Sequence[LoadedPlan], wanted: Sequence[tuple[LoadedPlan, list[int]]], allowed: int, took: Sequence[int] = ()
) -> None:
    """Refuse before the first of the contexts, or after the second, what would fail at the last.

    Args:
        wanted: a plan and the profiles to use, by index, for each context.
        allowed: bytes of device memory that were free before the plans were loaded, or less.
        took: bytes that the first contexts took. Of plugins these are far more than activations: each context has
            handles of cuBLAS and cuDNN.
    """
    activations = sum(plan.activation_bytes for plan, _ in wanted)
    contexts = max(activations, sum(took) + took[-1] * (len(wanted) - len(took)) if took else 0)
    weights = sum(plan.weight_bytes for plan in plans)
    buffers = sum(4 * sum(plan.buffer_sizes(only).values()) for plan, only in wanted)
    needed = contexts + weights + buffers
    if needed > allowed:
        one, several = len(wanted) == 1, len(plans) > 1
        fewer = "use trt.engines=one" if several else "use trt.contexts=one, or fewer profiles"
        advice = "ask for smaller shapes" if one else fewer
        what = "activations" if contexts == activations else f"contexts, by the first {len(took)}"
        raise RuntimeError(
            f"{'the context needs' if one else f'{len(wanted)} contexts need'} {needed} bytes of device memory "
            f"({contexts >> 20} MiB of {what}, {weights >> 20} MiB of weights, {buffers >> 20} MiB of buffers) "
            f"and {allowed >> 20} MiB are to be had: {advice}"
        )
