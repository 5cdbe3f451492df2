"""Fake APIs of TensorRT for tests without TensorRT."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

from backends.tensorrt_.runtime.capabilities import Capabilities
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi

ALL = frozenset(Capabilities.__dataclass_fields__)
"""Names of all capabilities."""

RTX_ONLY = frozenset({"named_targets", "runtime_strategies", "engine_validity"})
"""Names of the capabilities of TensorRT-RTX only."""


def capabilities(names: set[str] | frozenset[str]) -> Capabilities:
    """Return the capabilities of a release that has `names` only."""
    return Capabilities(**{name: name in names for name in ALL})


def fake_api(names: set[str] | frozenset[str] = frozenset(), version: str = "8.6.0", module: Any = None) -> TensorRTApi:
    """Return an API with the capabilities `names`, of a mock module unless `module` is given."""
    if module is None:
        module = MagicMock(__version__=version)
        module.ILogger = module.IProgressMonitor = object
    return TensorRTApi(module, capabilities(names))
