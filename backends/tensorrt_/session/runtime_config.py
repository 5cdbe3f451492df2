"""Options of TensorRT-RTX for an execution context: kernels for new shapes, a cache for them, its own CUDA graphs."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from backends.atomic_file import write_atomically
from backends.base import BuildSpec, Unsupported
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi
from backends.tensorrt_.runtime.tensorrt_options import DynamicShapes, GraphStrategy, TensorRTOptions

if TYPE_CHECKING:
    import tensorrt as trt

logger = logging.getLogger(__name__)

FOLDER = "runtime"
"""Folder in the cache for compiled kernels, one file per plan."""


class ContextFactory:
    """Creates the execution contexts of a plan, and keeps the kernels on disk that they compile.

    The name of the file has the digest of the plan, so a plan never reads the file of another build.
    """

    def __init__(self, api: TensorRTApi, spec: BuildSpec, plan: bytes) -> None:
        self._api = api
        self._options = _resolved(spec)
        self.path = spec.cache / FOLDER / f"{hashlib.sha256(plan).hexdigest()[:24]}.bin"
        self._serialize: Callable[[], trt.IHostMemory] | None = None

    def new_context(self, engine: trt.ICudaEngine) -> trt.IExecutionContext | None:
        """Return a new context with the options of sessions; None if TensorRT creates none.

        A file of kernels that TensorRT-RTX does not accept is renamed.
        """
        trt, can, options = self._api.trt, self._api.can, self._options
        own = (options.dynamic_shapes, options.runtime_cache, options.graphs)
        if not can.runtime_strategies or own == (DynamicShapes.auto, False, GraphStrategy.suite):
            return engine.create_execution_context()
        runtime_config = engine.create_runtime_config()
        if options.dynamic_shapes is not DynamicShapes.auto:
            strategy = getattr(trt.DynamicShapesKernelSpecializationStrategy, options.dynamic_shapes.name.upper())
            runtime_config.dynamic_shapes_kernel_specialization_strategy = strategy
        if options.graphs is GraphStrategy.runtime:
            runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if options.runtime_cache:
            runtime_cache = runtime_config.create_runtime_cache()
            if self.path.exists() and not runtime_cache.deserialize(self.path.read_bytes()):
                self._set_aside()
            runtime_config.set_runtime_cache(runtime_cache)
            self._serialize = runtime_cache.serialize
        return engine.create_execution_context(runtime_config)

    def _set_aside(self) -> None:
        rejected = self.path.with_suffix(".rejected")
        os.replace(self.path, rejected)
        logger.warning(
            "runtime cache %s is damaged, or of another release, GPU or driver; renamed to %s, and kernels are "
            "compiled again",
            self.path.name,
            rejected.name,
        )

    def save(self) -> None:
        """Write the kernels of the last context to the file, if the options keep them."""
        serialize, self._serialize = self._serialize, None
        if serialize is not None:
            write_atomically(self.path, bytes(memoryview(serialize())), 0o600)


def _resolved(spec: BuildSpec) -> TensorRTOptions:
    """Return the options, with dynamic_shapes=auto resolved if the suite captures CUDA graphs.

    A captured step keeps the kernels that it has at that time, so they must be compiled before.
    """
    options = spec.options_as(TensorRTOptions)
    if spec.cuda_graph and options.dynamic_shapes is DynamicShapes.auto:
        return replace(options, dynamic_shapes=DynamicShapes.eager)
    return options


def check_capturable(api: TensorRTApi, context: trt.IExecutionContext, stream: int) -> None:
    """Check that a step of the context can be captured on the stream with this handle.

    Raises:
        Unsupported: TensorRT-RTX still compiles kernels for the shape, or captures steps by itself.
    """
    can = api.can
    if not can.runtime_strategies:
        return
    if not context.is_stream_capturable(stream):
        raise Unsupported(
            "TensorRT-RTX cannot capture a step now: use trt.dynamic_shapes=eager, trt.graphs=runtime or "
            "cuda_graph=false"
        )
