"""A plan ready to run: one context, one stream, buffers for the largest shape of any profile."""

from __future__ import annotations

import hashlib

import numpy as np
import tensorrt as trt

from backends.base import Array, Artifact, BuildSpec, Feeds, Session, Shape
from backends.cuda import CudaGraph, CudaStream, DeviceArray, PinnedArray, use_device
from backends.tensorrt_.log import Log
from backends.tensorrt_.profiles import Profile, choose

HOST_TYPES = {trt.DataType.FLOAT: np.float32, trt.DataType.HALF: np.float16, trt.DataType.INT32: np.int32}


class TensorRTSession(Session):
    """Runs on `execute_async_v3`; inputs and output are found by name.

    A change of shape is a change of profile where another one holds the shape more narrowly. Nothing is allocated
    after opening, so that addresses stay the same for CUDA graphs.
    """

    def __init__(self, spec: BuildSpec, artifact: Artifact) -> None:
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
        self._profiles = self._read_profiles()
        self._profile = 0
        self._shape = Shape(0, 0)
        self._graph: CudaGraph | None = None
        self._allocate()

    def _read_profiles(self) -> list[Profile]:
        name = self._inputs[0]
        found = [self._engine.get_tensor_profile_shape(name, i) for i in range(self._engine.num_optimization_profiles)]
        return [Profile(*(Shape(*sizes) for sizes in shapes)) for shapes in found]

    def _allocate(self) -> None:
        """Buffers for the largest shape of any profile, on the device and pinned on the host."""
        tokens = max(held.high.batch * held.high.sequence for held in self._profiles)
        hidden = self._engine.get_tensor_shape(self._output)[-1]
        kind = self._engine.get_tensor_dtype(self._output)
        # numpy has no bfloat16: its bits are the upper half of a float32's.
        self._host_type = HOST_TYPES.get(kind, np.uint16)
        self._pinned = {name: PinnedArray((tokens,), np.int32) for name in self._inputs}
        self._pinned_output = PinnedArray((tokens * hidden,), self._host_type)
        sizes = {name: buffer.array.nbytes for name, buffer in self._pinned.items()}
        sizes[self._output] = self._pinned_output.array.nbytes
        self._device = {name: DeviceArray(size) for name, size in sizes.items()}
        for name, buffer in self._device.items():
            self._context.set_tensor_address(name, buffer.pointer)

    def load(self, feeds: Feeds) -> None:
        shape = Shape(*feeds["input_ids"].shape)
        if shape != self._shape:
            self._change(shape)
        for name in self._inputs:
            host = self._pinned[name].array[: shape.batch * shape.sequence]
            host[...] = feeds[name].reshape(-1)
            self._stream.copy_in(self._device[name].pointer, host)

    def _change(self, shape: Shape) -> None:
        """Make `shape` the context's, in the profile that holds it most narrowly."""
        self._graph = None
        profile = choose(self._profiles, shape)
        if profile != self._profile:
            # The switch is enqueued on the stream of the coming steps, which orders it before them.
            self._context.set_optimization_profile_async(profile, int(self._stream.handle))
            self._profile = profile
        for name in self._inputs:
            self._context.set_input_shape(name, (shape.batch, shape.sequence))
        self._shape = shape

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
        return values.reshape(sizes)

    def capture(self) -> None:
        self.wait()
        self._graph = None
        self._graph = CudaGraph(self._stream, self.step)
