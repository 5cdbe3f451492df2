"""Session of a plan: one context, one stream, and buffers for the largest shape of its profiles."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from backends.base import Array, Artifact, BuildSpec, Feeds, Session, Shape, Unsupported
from backends.cuda import CudaGraph, CudaStream, DeviceArray, PinnedArray, use_device
from backends.profiles import Profile, choose_profile
from backends.tensorrt_.runtime.layout import ArrangedBatch, Layout, Rows, Sizes
from backends.tensorrt_.runtime.loading import load_plugins, read_plan
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions


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
        trt, self._api = api.trt, api
        options = spec.options_as(TensorRTOptions)
        self.weight_bytes = len(plan)
        use_device(spec.device.index)
        self.log = Log(api)
        load_plugins(api, options, self.log)
        engine = read_plan(api, plan, options, self.log)
        if engine is None:
            raise RuntimeError(f"TensorRT cannot read the plan: {'; '.join(self.log.errors)}")
        self.engine = engine
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
        can = self._api.can
        return int(self.engine.device_memory_size if can.memory_size_v1 else self.engine.device_memory_size_v2)

    def _read_ranges(self, index: int) -> dict[str, tuple[Sizes, Sizes, Sizes]]:
        """Return the min, opt and max sizes of each input in a profile."""
        ranges = {}
        for name in self.inputs:
            min_sizes, opt_sizes, max_sizes = self.engine.get_tensor_profile_shape(name, index)
            ranges[name] = (tuple(min_sizes), tuple(opt_sizes), tuple(max_sizes))
        return ranges


ALIGNMENT = 64
"""Inputs begin at multiples of this number of int32 values: TensorRT needs multiples of 256 bytes."""


@dataclass(frozen=True)
class InputPlaces:
    """Places of the inputs of one batch in the common buffer.

    Attributes:
        starts: index of the first value, by input name.
        size: number of values up to the end of the last input.
    """

    starts: Mapping[str, int]
    size: int


def places_of(sizes: Mapping[str, Sizes]) -> InputPlaces:
    """Return the places of inputs of these sizes, one after the other, so that a batch needs a single copy."""
    starts, end = {}, 0
    for name, input_sizes in sizes.items():
        starts[name] = end
        end += -(-math.prod(input_sizes) // ALIGNMENT) * ALIGNMENT
    return InputPlaces(starts, end)


NO_BATCH = ArrangedBatch({}, (0, 0))

NO_ROWS: tuple[tuple[int, int], Array] = (0, 0), np.zeros(0, int)
"""Shape of the last output whose sequences were copied one by one, and the number of values of each."""


@dataclass(frozen=True)
class CapturedStep:
    """CUDA graph of one step, and the sizes of its output."""

    graph: CudaGraph
    output: tuple[int, ...]


class TensorRTSession(Session):
    """Session of one execution context, which runs `execute_async_v3` and binds inputs and output by name.

    A change of shape also changes the profile if another profile contains the shape and has fewer shapes. Nothing is
    allocated after `allocate`, so that addresses stay the same for CUDA graphs.

    Args:
        stream: CUDA stream of the steps and copies.
        only: indices of the profiles to use; all profiles if empty.
    """

    def __init__(self, plan: LoadedPlan, stream: CudaStream, only: Sequence[int] = ()) -> None:
        engine, self._plan, self._log = plan.engine, plan, plan.log
        self._context = engine.create_execution_context()
        if self._context is None:
            raise RuntimeError(f"TensorRT created no execution context: {'; '.join(self._log.errors) or 'no reason'}")
        self.stream = self._stream = stream
        self._usable = list(only) or list(range(len(plan.profiles)))
        self.profiles: list[Profile] = [plan.profiles[index] for index in self._usable]
        self._profile_index = 0
        self._batch = NO_BATCH
        self._stepped = False
        self._in_context: dict[str, tuple[int, ...]] = {}
        self._places = places_of({})
        self._filled = NO_ROWS

    def allocate(self) -> None:
        """Allocate buffers for the largest sizes of any profile, on the device and pinned on the host."""
        inputs, outputs = self._plan.buffer_sizes(self._usable)
        self._pinned_inputs = PinnedArray((inputs,), np.int32)
        self._pinned_output = PinnedArray((outputs,), self._plan.host_type)
        self._device_inputs = DeviceArray(self._pinned_inputs.array.nbytes)
        self._device_output = DeviceArray(self._pinned_output.array.nbytes)
        self._set_address(self._plan.output, self._device_output.pointer)

    def _set_address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise RuntimeError(f"TensorRT does not accept the address of {name}: {self._log.last_error()}")

    def close(self) -> None:
        with suppress(RuntimeError):  # an earlier failure was reported when it occurred
            self.wait()
        self.graphs.clear()
        self._context = None
        for name in ("_pinned_inputs", "_pinned_output", "_device_inputs", "_device_output", "_plan"):
            vars(self).pop(name, None)

    def _step_without_graph(self) -> None:
        if self.replays:
            # The context may have other sizes or another profile than the graph: the next `set_shape` sets them.
            self._batch = NO_BATCH
        super()._step_without_graph()

    def changing(self, feeds: Feeds) -> Iterator[str]:
        # No batch is loaded until all of this succeeds: after a refused batch, a step must not run the previous one.
        previous, self._batch = self._batch, NO_BATCH
        batch = self._plan.layout.arrange(feeds)
        sizes = _sizes(batch)
        changed = sizes != _sizes(previous)
        if changed:
            self.graphs.drop()
        self.graphs.select(tuple(sizes.items()))
        self._places = places_of(sizes)
        yield "arrange"
        if changed and not self.replays:
            yield from self._change(Shape(*feeds["input_ids"].shape), sizes)
        self._batch = batch

    def copy_in(self, feeds: Feeds) -> None:
        host = self._pinned_inputs.array
        for name, array in self._batch.arrays.items():
            start = self._places.starts[name]
            host[start : start + array.size] = array.reshape(-1)
        self._stream.copy_in(self._device_inputs.pointer, host[: self._places.size])

    def _change(self, shape: Shape, sizes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
        """Set `sizes` in the context, in the profile that contains `shape` and has the fewest shapes."""
        self._in_context, self._stepped = {}, False
        index = self._usable[choose_profile(self.profiles, shape)]
        profile = self._plan.profiles[index]
        if index != self._profile_index:
            # The switch is enqueued on the stream of the steps, so it runs before the next step.
            if not self._context.set_optimization_profile_async(index, int(self._stream.handle)):
                raise RuntimeError(f"TensorRT could not switch to the profile {profile}: {self._log.last_error()}")
            self._profile_index = index
            yield "profile"
        for name, input_sizes in sizes.items():
            if not self._context.set_input_shape(name, input_sizes):
                raise ValueError(f"{name} of sizes {input_sizes} is outside the profile {profile}")
            self._set_address(name, self._device_inputs.pointer + 4 * self._places.starts[name])
        self._in_context = dict(sizes)
        yield "input shape"

    def step(self) -> None:
        if self._batch is NO_BATCH:
            raise RuntimeError("no batch is loaded, or the last one was refused: load a batch first")
        captured: CapturedStep | None = self.graphs.current
        if captured is not None:
            captured.graph.launch()
        elif not self._context.execute_async_v3(int(self._stream.handle)):
            raise RuntimeError(f"TensorRT could not enqueue a step: {'; '.join(self._log.errors[-3:])}")
        else:
            self._stepped = True

    def wait(self) -> None:
        self._stream.synchronize()

    def fetch(self) -> Array:
        """Return the output. Packed tokens are copied from the device to their places in [batch, sequence, features].

        Values of padding tokens are then 0.
        """
        captured: CapturedStep | None = self.graphs.current
        sizes = captured.output if captured else self._output_sizes()
        if self._plan.per_token and self._batch.starts is not None:
            host = self._copy_rows(self._batch.starts, self._batch.shape)
        else:
            self._filled = NO_ROWS
            host = self._pinned_output.array[: math.prod(sizes)]
            self._stream.copy_out(host, self._device_output.pointer)
        self.wait()
        values = (host.astype(np.uint32) << 16).view(np.float32) if self._plan.host_type == np.uint16 else host
        return self._batch.restore(values) if self._plan.per_token else values.reshape(self._batch.shape[0], -1)

    def _copy_rows(self, starts: Array, shape: tuple[int, int]) -> Array:
        """Enqueue one copy for each sequence of packed tokens, and set values at padding to 0."""
        (batch, sequence), width = shape, self._plan.features
        host = self._pinned_output.array[: batch * sequence * width].reshape(batch, sequence * width)
        lengths = np.diff(starts) * width
        # Padding was set to 0 before, except where the last output had tokens.
        filled = self._filled[1] if self._filled[0] == shape else np.full(batch, sequence * width)
        begin = starts[:-1] * (width * host.itemsize)
        for row, (first, length, previous) in enumerate(zip(begin.tolist(), lengths.tolist(), filled, strict=True)):
            self._stream.copy_out(host[row, :length], self._device_output.pointer + first)
            host[row, length:previous] = 0
        self._filled = shape, lengths
        return host

    def _output_sizes(self) -> tuple[int, ...]:
        return tuple(self._context.get_tensor_shape(self._plan.output))

    def capture(self) -> None:
        """Capture one step as a CUDA graph. A plain step at this shape must run before.

        Raises:
            Unsupported: graphs are to be kept, but the context has several profiles.
            RuntimeError: no plain step has run at this shape.
        """
        if self.keeps_graphs and len(self.profiles) > 1:
            # Observed with 8.6: to launch a graph of a profile that is no longer the context's ends the process.
            raise Unsupported("a context that changes its profile cannot keep graphs: use trt.contexts=per_profile")
        self.wait()
        self.graphs.drop()
        if not self._stepped or self._in_context != _sizes(self._batch):
            raise RuntimeError("capture needs a plain step at this shape first")
        self.graphs.add(CapturedStep(CudaGraph(self._stream, self.step), self._output_sizes()))


def _sizes(batch: ArrangedBatch) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in batch.arrays.items()}
