"""From plans to a session: one context for all profiles, one a profile, or one for each of several engines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from backends.base import Array, Artifact, BuildSpec, Feeds, Session, Shape
from backends.cache import digest_of
from backends.cuda import CudaStream, free_memory
from backends.tensorrt_.layout import Layout
from backends.tensorrt_.profiles import choose
from backends.tensorrt_.session import LoadedPlan, TensorRTSession


class SeveralContexts(Session):
    """Sessions with profiles of their own behind one; they share a stream, so that a change waits for nothing."""

    def __init__(self, sessions: Sequence[TensorRTSession]) -> None:
        self._sessions = sessions
        self._current = sessions[0]
        self.stream = sessions[0].stream

    def set_shape(self, feeds: Feeds) -> None:
        profiles = [(session, profile) for session in self._sessions for profile in session.profiles]
        index = choose([profile for _, profile in profiles], Shape(*feeds["input_ids"].shape))
        self._current = profiles[index][0]
        self._current.remembers = self.remembers
        self._current.set_shape(feeds)

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
    plans = [LoadedPlan(spec, plan, layout) for plan in _artifacts(spec, artifact)]
    yield "deserialize", None
    each = spec.options.get("contexts", "one") == "per_profile"
    wanted = [(plan, [index] if each else []) for plan in plans for index in range(len(plan.profiles) if each else 1)]
    _check_memory([plan for plan, _ in wanted])
    stream = CudaStream(spec.device.index)
    sessions = [TensorRTSession(plan, stream, only) for plan, only in wanted]
    yield "contexts", sessions[0] if len(sessions) == 1 else SeveralContexts(sessions)


def _artifacts(spec: BuildSpec, artifact: Artifact) -> list[Artifact]:
    if artifact.path.suffix != ".json":
        return [artifact]
    if digest_of(artifact.path) != artifact.sha256:
        raise RuntimeError("the list of plans is not the one that was made here; run the cell again to have it remade")
    listed = json.loads(artifact.path.read_text())
    return [Artifact(spec.cache / plan["path"], plan["sha256"]) for plan in listed]


def _check_memory(plans: Sequence[LoadedPlan]) -> None:
    """Refuse before the first of the contexts, one for each of `plans`, what would fail at the last."""
    needed, free = sum(plan.activation_bytes for plan in plans), free_memory()
    if needed > free:
        one = len(plans) == 1
        advice = "ask for smaller shapes" if one else "use trt.contexts=one, or fewer profiles"
        raise RuntimeError(
            f"{'the context needs' if one else f'{len(plans)} contexts need'} {needed >> 20} MiB of device memory and "
            f"{free >> 20} MiB are free: {advice}"
        )
