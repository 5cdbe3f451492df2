"""A plan ready to run: one context, one stream, buffers for the largest shape of any profile."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import tensorrt as trt

from backends.base import Array, Artifact, BuildSpec, Feeds, Session, Shape
from backends.cuda import CudaGraph, CudaStream, DeviceArray, PinnedArray, use_device
from backends.tensorrt_.layout import Arranged, Layout, Rows, Sizes
from backends.tensorrt_.log import Log
from backends.tensorrt_.profiles import choose

HOST_TYPES = {trt.DataType.FLOAT: np.float32, trt.DataType.HALF: np.float16, trt.DataType.INT32: np.int32}


class TensorRTSession(Session):
    """Runs on `execute_async_v3`; inputs and output are found by name.

    A change of shape is a change of profile where another one holds the shape more narrowly. Nothing is allocated
    after opening, so that addresses stay the same for CUDA graphs. `layout` says how a batch lies in the inputs: by
    default in rows.
    """

    def __init__(self, spec: BuildSpec, artifact: Artifact, layout: Layout | None = None) -> None:
        # A plan holds code that runs with our rights: only what was built here, to the byte, is deserialized.
        plan = artifact.path.read_bytes()
        if hashlib.sha256(plan).hexdigest() != artifact.sha256:
            raise RuntimeError("the plan is not the one that was built here; run the cell again to have it rebuilt")
        use_device(spec.device.index)
        self._log = Log()
        for library in spec.options["plugin_libraries"]:
            trt.get_plugin_registry().load_library(library)
        trt.init_libnvinfer_plugins(self._log, "")
        self._runtime = trt.Runtime(self._log)
        self._runtime.engine_host_code_allowed = spec.options["version_compatible"]
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise RuntimeError(f"TensorRT cannot read the plan: {'; '.join(self._log.errors)}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise RuntimeError(f"TensorRT gave no execution context: {'; '.join(self._log.errors) or 'no reason'}")
        self.stream = self._stream = CudaStream(spec.device.index)
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        outputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT]
        self._inputs, self._output = [name for name in names if name not in outputs], outputs[0]
        self._layout = layout or Rows(tuple(self._inputs))
        self._ranges = [self._read_ranges(index) for index in range(self._engine.num_optimization_profiles)]
        self._profiles = [self._layout.profile(ranges) for ranges in self._ranges]
        self._profile = 0
        self._batch = Arranged({}, lambda output: output)
        self._graph: CudaGraph | None = None
        self._allocate()

    def _read_ranges(self, index: int) -> dict[str, tuple[Sizes, Sizes, Sizes]]:
        """Smallest, best and largest sizes of each input in a profile."""
        ranges = {}
        for name in self._inputs:
            low, best, high = self._engine.get_tensor_profile_shape(name, index)
            ranges[name] = (tuple(low), tuple(best), tuple(high))
        return ranges

    def _allocate(self) -> None:
        """Buffers for the largest sizes of any profile, on the device and pinned on the host."""
        most = {name: max(math.prod(ranges[name][2]) for ranges in self._ranges) for name in self._inputs}
        kind = self._engine.get_tensor_dtype(self._output)
        # numpy has no bfloat16: its bits are the upper half of a float32's.
        self._host_type = HOST_TYPES.get(kind, np.uint16)
        hidden = self._engine.get_tensor_shape(self._output)[self._layout.hidden_axis]
        tokens = max(held.high.batch * held.high.sequence for held in self._profiles)
        self._pinned = {name: PinnedArray((size,), np.int32) for name, size in most.items()}
        self._pinned_output = PinnedArray((tokens * hidden,), self._host_type)
        sizes = {name: buffer.array.nbytes for name, buffer in self._pinned.items()}
        sizes[self._output] = self._pinned_output.array.nbytes
        self._device = {name: DeviceArray(size) for name, size in sizes.items()}
        for name, buffer in self._device.items():
            self._context.set_tensor_address(name, buffer.pointer)

    def load(self, feeds: Feeds) -> None:
        before, self._batch = self._batch, self._layout.arrange(feeds)
        if _sizes(before) != _sizes(self._batch):
            self._change(Shape(*feeds["input_ids"].shape))
        for name, array in self._batch.arrays.items():
            host = self._pinned[name].array[: array.size]
            host[...] = array.reshape(-1)
            self._stream.copy_in(self._device[name].pointer, host)

    def _change(self, shape: Shape) -> None:
        """Make the sizes of the batch the context's, in the profile that holds `shape` most narrowly."""
        self._graph = None
        profile = choose(self._profiles, shape)
        if profile != self._profile:
            # The switch is enqueued on the stream of the coming steps, which orders it before them.
            self._context.set_optimization_profile_async(profile, int(self._stream.handle))
            self._profile = profile
        for name, array in self._batch.arrays.items():
            if not self._context.set_input_shape(name, array.shape):
                raise ValueError(f"{name} of sizes {array.shape} is outside the profile {self._profiles[profile]}")

    def step(self) -> None:
        if self._graph is not None:
            self._graph.launch()
        elif not self._context.execute_async_v3(int(self._stream.handle)):
            raise RuntimeError(f"TensorRT could not enqueue: {'; '.join(self._log.errors[-3:])}")

    def wait(self) -> None:
        self._stream.synchronize()

    def fetch(self) -> Array:
        sizes = tuple(self._context.get_tensor_shape(self._output))
        host = self._pinned_output.array[: int(np.prod(sizes))]
        self._stream.copy_out(host, self._device[self._output].pointer)
        self.wait()
        values = (host.astype(np.uint32) << 16).view(np.float32) if self._host_type == np.uint16 else host
        return self._batch.restore(values.reshape(sizes))

    def capture(self) -> None:
        self.wait()
        self._graph = None
        self._graph = CudaGraph(self._stream, self.step)


def _sizes(batch: Arranged) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in batch.arrays.items()}
