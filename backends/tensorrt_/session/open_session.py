"""Open a session from plans: one context for all profiles, one context per profile, or one context per engine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from weakref import WeakValueDictionary

from backends.base import Array, Artifact, BuildSpec, Feeds, Opening, Session, Shape
from backends.cache import digest_of
from backends.cuda import CudaStream, free_memory, use_device
from backends.profiles import choose_profile
from backends.tensorrt_.runtime.layout import Layout
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi
from backends.tensorrt_.runtime.tensorrt_options import Contexts, TensorRTOptions
from backends.tensorrt_.session.loaded_plan import LoadedPlan, read_verified_plan
from backends.tensorrt_.session.session import TensorRTSession

SHARED: WeakValueDictionary[str, LoadedPlan] = WeakValueDictionary()
"""Engines of the open sessions with trt.share_engine, by the SHA-256 of their plans. Each session has contexts, buffers
and a stream of its own. Sessions are opened one after another."""


class MultiContextSession(Session):
    """Session of several contexts, each with its own profiles.

    The contexts share a stream, so a change of context needs no synchronization.
    """

    def __init__(self, sessions: Sequence[TensorRTSession]) -> None:
        self._sessions = sessions
        self._current = sessions[0]
        pairs = [(session, profile) for session in sessions for profile in session.profiles]
        self._owners, self._profiles = [session for session, _ in pairs], [profile for _, profile in pairs]
        self.stream = sessions[0].stream

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    @property
    def replays(self) -> bool:
        return self._current.replays

    def _step_without_graph(self) -> None:
        for session in self._sessions:
            session.keeps_graphs = False

    def changing(self, feeds: Feeds) -> Iterator[str]:
        self._choose(feeds)
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

    def answer(self, feeds: Feeds) -> Array:
        self._choose(feeds)
        return self._current.answer(feeds)

    def _choose(self, feeds: Feeds) -> None:
        """Make the context that contains the shape of `feeds` the current one."""
        self._current = self._owners[choose_profile(self._profiles, Shape(*feeds["input_ids"].shape))]
        if self.keeps_graphs:
            self._current.keeps_graphs = True

    def capture(self) -> None:
        self._current.capture()


def opening(api: TensorRTApi, spec: BuildSpec, artifact: Artifact, layout: Layout | None = None) -> Opening:
    """Open a session in parts; see Backend.opening.

    Args:
        artifact: a plan, or a list of plans that backends/tensorrt_/build/engine.py wrote.
        layout: layout of a batch in the inputs; Rows by default.

    Raises:
        RuntimeError: a plan differs from the one that was built, or the contexts need more memory than is available.
    """
    trt = api.trt
    use_device(spec.device.index)
    options = spec.options_as(TensorRTOptions)
    allowed = min(free_memory(), (options.memory_mb or 1 << 30) << 20)
    yield "device", None
    trt.init_libnvinfer_plugins(Log(api).logger, "")
    yield "plugins", None
    per_profile = options.contexts is Contexts.per_profile
    plans = []
    for plan_artifact in _artifacts(spec, artifact):
        shared = SHARED.get(plan_artifact.sha256) if options.share_engine else None
        if shared is None:
            content = read_verified_plan(plan_artifact)
            yield "read and verify", None
            shared = LoadedPlan(api, spec, content, layout)
            yield "deserialize", None
        if options.share_engine:
            SHARED[plan_artifact.sha256] = shared
        plans.append(shared)
    contexts = [(plan, only) for plan in plans for only in _profiles_of_contexts(len(plan.profiles), per_profile)]
    stream = CudaStream(spec.device.index)
    _check_memory(plans, contexts, allowed)
    sessions: list[TensorRTSession] = []
    used: list[int] = []
    for number, (plan, only) in enumerate(contexts, 1):
        free = free_memory()
        sessions.append(TensorRTSession(plan, stream, only))
        used.append(free - free_memory())
        # The first context may allocate memory that all share. The second one shows the memory of each further context.
        if len(used) == min(2, len(contexts)):
            _check_memory(plans, contexts, allowed, used)
        yield f"context {number}", None
    for session in sessions:
        session.allocate()
    yield "buffers", sessions[0] if len(sessions) == 1 else MultiContextSession(sessions)


def _profiles_of_contexts(profiles: int, per_profile: bool) -> list[list[int]]:
    """Return the indices of the profiles of each context."""
    return [[index] for index in range(profiles)] if per_profile else [list(range(profiles))]


def _artifacts(spec: BuildSpec, artifact: Artifact) -> list[Artifact]:
    if artifact.path.suffix != ".json":
        return [artifact]
    if digest_of(artifact.path) != artifact.sha256:
        raise RuntimeError("the list of plans differs from the one that was written; run the cell again to rewrite it")
    entries = json.loads(artifact.path.read_text(encoding="utf-8"))
    return [Artifact(spec.cache / entry["path"], entry["sha256"]) for entry in entries]


def _check_memory(
    plans: Sequence[LoadedPlan],
    contexts: Sequence[tuple[LoadedPlan, list[int]]],
    allowed: int,
    used: Sequence[int] = (),
) -> None:
    """Refuse contexts that need more memory than is available, before the creation of the last one fails.

    Args:
        contexts: a plan and the indices of the profiles, for each context.
        allowed: upper limit in bytes, at most the device memory that was free before the plans were loaded.
        used: measured bytes of the first contexts. With plugins they are far more than activations, because each
            context has handles of cuBLAS and cuDNN.

    Raises:
        RuntimeError: the contexts need more than `allowed`.
    """
    activation_bytes = sum(plan.activation_bytes for plan, _ in contexts)
    context_bytes = max(activation_bytes, sum(used) + used[-1] * (len(contexts) - len(used)) if used else 0)
    weight_bytes = sum(plan.weight_bytes for plan in plans)
    buffer_bytes = sum(4 * sum(plan.buffer_sizes(only)) for plan, only in contexts)
    needed = context_bytes + weight_bytes + buffer_bytes
    if needed > allowed:
        single = len(contexts) == 1
        fewer = "use trt.engines=one" if len(plans) > 1 else "use trt.contexts=one, or fewer profiles"
        advice = "request smaller shapes" if single else fewer
        kind = "activations" if context_bytes == activation_bytes else f"contexts, measured on the first {len(used)}"
        raise RuntimeError(
            f"{'the context needs' if single else f'{len(contexts)} contexts need'} {needed} bytes of device memory "
            f"({context_bytes >> 20} MiB of {kind}, {weight_bytes >> 20} MiB of weights, {buffer_bytes >> 20} MiB of "
            f"buffers) but {allowed >> 20} MiB are available: {advice}"
        )
