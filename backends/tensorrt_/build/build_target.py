"""Network and configuration that a build fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backends.tensorrt_.runtime.layout import Layout
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True)
class BuildTarget:
    """TensorRT's objects of one build.

    Attributes:
        builder: creates further objects, such as profiles.
        network: empty network.
        config: configuration of the builder, without precision and profiles.
        log: messages of the build.
    """

    api: TensorRTApi
    builder: trt.Builder
    network: trt.INetworkDefinition
    config: trt.IBuilderConfig
    log: Log


DefineNetwork = Callable[[BuildTarget], tuple[Layout, Mapping[str, object]]]
"""Fills the network of a target and sets the builder flags for its precision. Returns the layout of the inputs, and
notes for the record."""
