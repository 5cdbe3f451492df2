"""Common base of the two TensorRT backends: the API of the installed release, cached engines, and sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Artifact, Backend, BuildSpec, Device, Opening, Unavailable
from backends.finding import MISSING, OK, Finding
from backends.tensorrt_.build.build_limits import check_build_limit, limited_worker
from backends.tensorrt_.build.build_target import BuildTarget
from backends.tensorrt_.build.engine import cached_engine
from backends.tensorrt_.build.inspection import read_tactics
from backends.tensorrt_.runtime.installation import COMPANION_PACKAGES, DISTRIBUTIONS, INSTALL_COMMAND, available_api
from backends.tensorrt_.runtime.layout import Layout
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi

if TYPE_CHECKING:
    from backends.tensorrt_.build.build import StartedBuilder


def _release(api: TensorRTApi) -> str:
    return api.product if api.can.named_targets else api.version


DefineEngine = Callable[[BuildTarget, BuildSpec], tuple[Layout, Mapping[str, object]]]
"""DefineNetwork of backends/tensorrt_/build/build_target.py, with the spec of the engine."""


class TensorRTBackend(Backend):
    """Backend that builds and runs TensorRT engines.

    Args:
        find_api: returns the API of the installed TensorRT, or raises Unavailable. It is called at the first use.
    """

    distributions = DISTRIBUTIONS
    also_recorded = COMPANION_PACKAGES

    def __init__(self, find_api: Callable[[], TensorRTApi] = available_api) -> None:
        self._find_api = find_api
        self._early: StartedBuilder | None = None

    @cached_property
    def api(self) -> TensorRTApi:
        return self._find_api()

    def findings(self, device: Device) -> tuple[Finding, ...]:
        """Return the release of TensorRT, or how to install it."""
        try:
            return (Finding("TensorRT", OK, _release(self.api)),)
        except Unavailable as reason:
            return (Finding("TensorRT", MISSING, str(reason), INSTALL_COMMAND),)

    def layout(self, spec: BuildSpec) -> Layout | None:
        """Return the layout of a batch in the engine's inputs; None for Rows with the engine's own input names."""
        return None

    def start_builder(self, spec: BuildSpec) -> None:
        from backends.tensorrt_.build.build import start_early

        self._early = start_early(self.api, spec)

    def engine(self, spec: BuildSpec, made_from: Mapping[str, object], define: DefineEngine) -> Artifact:
        """Return the engine of the network that `define` creates, from the cache if it has one; see `cached_engine`."""
        check_build_limit(spec)

        def build(engine_spec: BuildSpec, path: Path) -> Mapping[str, object]:
            with limited_worker(engine_spec):
                from backends.tensorrt_.build.build import build_plan

                # Only the first of several engines uses the builder: the later ones start one quickly.
                early, self._early = self._early, None
                return build_plan(self.api, engine_spec, path, lambda target: define(target, engine_spec), early)

        return cached_engine(spec, made_from, build)

    def tactics(self, artifact: Artifact) -> tuple[str, ...]:
        return read_tactics(artifact.path)

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        from backends.tensorrt_.session.open_session import opening

        api = self.api
        yield "import", None
        yield from opening(api, spec, artifact, self.layout(spec))
