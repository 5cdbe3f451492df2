"""A plan in memory: its inputs, its output, and the sizes of its profiles."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Artifact, BuildSpec
from backends.compute_share import current_share
from backends.cuda import CudaStream, use_device
from backends.tensorrt_.runtime.layout import Layout, Rows, Sizes, places_of
from backends.tensorrt_.runtime.loading import load_plugins, read_plan
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions
from backends.tensorrt_.session.runtime_config import ContextFactory, check_capturable

if TYPE_CHECKING:
    import tensorrt as trt


def read_verified_plan(artifact: Artifact) -> bytes:
    """Read a plan from its file and check its digest.

    A plan contains code that runs with the user's rights. For this reason only a plan that the suite built is opened.

    Raises:
        RuntimeError: the file differs from the plan that was built.
    """
    plan = artifact.path.read_bytes()
    if hashlib.sha256(plan).hexdigest() != artifact.sha256:
        raise RuntimeError("the plan differs from the one that was built; run the cell again to rebuild it")
    return plan


class LoadedPlan:
    """Deserialized plan, with the names of its inputs and output, and its profiles.

    `weight_bytes` is the size of the plan, which consists almost entirely of weights.

    Args:
        layout: layout of a batch in the inputs; Rows by default.
    """

    def __init__(self, api: TensorRTApi, spec: BuildSpec, plan: bytes, layout: Layout | None = None) -> None:
        trt, self.api = api.trt, api
        options = spec.options_as(TensorRTOptions)
        self.weight_bytes = len(plan)
        self._device = spec.device.index
        use_device(self._device)
        self.log = Log(api)
        load_plugins(api, options, self.log)
        engine = read_plan(api, plan, options, self.log)
        if engine is None:
            reason = "; ".join(self.log.errors) or "no reason"
            raise RuntimeError(f"{api.product} cannot read the plan: {' '.join(reason.split())}")
        self.engine, self.contexts = engine, ContextFactory(api, spec, plan)
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        outputs = [n for n in names if self.engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT]
        self.inputs, self.output = [name for name in names if name not in outputs], outputs[0]
        self.layout = layout or Rows(tuple(self.inputs))
        self.ranges = [self._read_ranges(index) for index in range(self.engine.num_optimization_profiles)]
        self.profiles = [self.layout.profile(ranges) for ranges in self.ranges]
        # numpy has no bfloat16. Its bits are the upper half of a float32, so they are copied as uint16.
        host_types: dict[object, type[np.generic]] = {
            trt.DataType.FLOAT: np.float32,
            trt.DataType.HALF: np.float16,
            trt.DataType.INT32: np.int32,
        }
        self.host_type = host_types.get(self.engine.get_tensor_dtype(self.output), np.uint16)
        self.per_token = spec.output.per_token
        leading = self.layout.token_axes if self.per_token else 1
        self.features = math.prod(tuple(self.engine.get_tensor_shape(self.output))[leading:])

    def new_context(self) -> trt.IExecutionContext:
        """Return a new execution context. All its streams are in the share of `limited_to`.

        Raises:
            RuntimeError: TensorRT created none.
        """
        context = self.contexts.new_context(self.engine)
        if context is None:
            raise RuntimeError(f"TensorRT created no execution context: {'; '.join(self.log.errors) or 'no reason'}")
        if current_share() is not None:
            # Streams that TensorRT makes for the branches of a network would have all SMs.
            streams = [CudaStream(self._device) for _ in range(self.engine.num_aux_streams)]
            context.set_aux_streams([int(stream.handle) for stream in streams])
        return context

    def check_capturable(self, context: trt.IExecutionContext, stream: int) -> None:
        """Check that a step of the context can be captured; see backends/tensorrt_/session/runtime_config.py."""
        check_capturable(self.api, context, stream)

    def buffer_sizes(self, only: Sequence[int]) -> tuple[int, int]:
        """Return the largest number of values of all inputs together (see `places_of`), and of the output.

        Args:
            only: indices of the profiles to include.
        """
        largest = [{name: sizes[2] for name, sizes in self.ranges[index].items()} for index in only]
        inputs = max(places_of(sizes).size for sizes in largest)
        shapes = [self.profiles[index].max for index in only]
        rows = max(shape.batch * (shape.sequence if self.per_token else 1) for shape in shapes)
        return inputs, rows * self.features

    @property
    def activation_bytes(self) -> int:
        """Device memory of one execution context, in bytes."""
        can = self.api.can
        return int(self.engine.device_memory_size if can.memory_size_v1 else self.engine.device_memory_size_v2)

    def _read_ranges(self, index: int) -> dict[str, tuple[Sizes, Sizes, Sizes]]:
        """Return the min, opt and max sizes of each input in a profile."""
        ranges = {}
        for name in self.inputs:
            min_sizes, opt_sizes, max_sizes = self.engine.get_tensor_profile_shape(name, index)
            ranges[name] = (tuple(min_sizes), tuple(opt_sizes), tuple(max_sizes))
        return ranges
