"""Session of a plan: one context, one stream, and buffers for the largest shape of its profiles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from backends.base import Array, Feeds, Session, Shape, Unsupported
from backends.cuda import CudaGraph, CudaStream, DeviceArray, PinnedArray
from backends.kernel_times import StepProfile, median_step
from backends.observed_calls import Around, ObservedMethod
from backends.profiles import Profile, choose_profile
from backends.tensorrt_.runtime.layout import ArrangedBatch, places_of
from backends.tensorrt_.session.layer_times import profiled_steps
from backends.tensorrt_.session.loaded_plan import LoadedPlan

if TYPE_CHECKING:
    import tensorrt as trt

NO_BATCH = ArrangedBatch({}, (0, 0))

NO_ROWS: tuple[tuple[int, int], Array] = (0, 0), np.zeros(0, int)
"""Shape of the last output whose sequences were copied one by one, and the number of values of each."""


@dataclass
class CapturedStep:
    """CUDA graph of one step.

    Attributes:
        output: sizes of its output.
        request: graph of a request: the copy of the inputs, the step, and the copy of its output. The first request
            after the capture captures it.
    """

    graph: CudaGraph
    output: tuple[int, ...]
    request: CudaGraph | None = None


class TensorRTSession(Session):
    """Session of one execution context, which runs `execute_async_v3` and binds inputs and output by name.

    A change of shape also changes the profile if another profile contains the shape and has fewer shapes. Nothing is
    allocated after `allocate`, so that addresses stay the same for CUDA graphs.

    Args:
        stream: CUDA stream of the steps and copies.
        only: indices of the profiles to use; all profiles if empty.
    """

    def __init__(self, plan: LoadedPlan, stream: CudaStream, only: Sequence[int] = ()) -> None:
        self._plan, self._log = plan, plan.log
        self._context = plan.new_context()
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
        if "_plan" in vars(self):
            self._plan.contexts.save()
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
            self._places = places_of(sizes)
        self.graphs.select(tuple(sizes.items()))
        yield "arrange"
        if changed and not self.replays:
            yield from self._change(Shape(*feeds["input_ids"].shape), sizes)
        self._batch = batch

    def copy_in(self, feeds: Feeds) -> None:
        self._fill()
        self._enqueue_copy_in()

    def _fill(self) -> None:
        """Write the loaded batch to pinned memory."""
        host, starts = self._pinned_inputs.array, self._places.starts
        for name, array in self._batch.arrays.items():
            start = starts[name]
            host[start : start + array.size] = array.reshape(-1)

    def _enqueue_copy_in(self) -> None:
        self._stream.copy_in(self._device_inputs.pointer, self._pinned_inputs.array[: self._places.size])

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
        else:
            self._enqueue_step()
            self._stepped = True

    def _enqueue_step(self) -> None:
        if not self._context.execute_async_v3(int(self._stream.handle)):
            raise RuntimeError(f"TensorRT could not enqueue a step: {'; '.join(self._log.errors[-3:])}")

    @contextmanager
    def observed(self, around: Around) -> Iterator[bool]:
        """Observe the launch of the graph, or the context, which enqueues a step."""
        captured: CapturedStep | None = self.graphs.current
        context, graph = self._context, captured.graph if captured else None
        if captured is not None:
            captured.graph = cast(CudaGraph, ObservedMethod(captured.graph, "launch", around))
        else:
            self._context = cast("trt.IExecutionContext", ObservedMethod(context, "execute_async_v3", around))
        try:
            yield True
        finally:
            self._context = context
            if captured is not None and graph is not None:
                captured.graph = graph

    def wait(self) -> None:
        self._stream.synchronize()

    def fetch(self) -> Array:
        """Return the output. Packed tokens are copied from the device to their places in [batch, sequence, features].

        Values of padding tokens are then 0.
        """
        captured: CapturedStep | None = self.graphs.current
        if self._plan.per_token and self._batch.starts is not None:
            host = self._copy_rows(self._batch.starts, self._batch.shape)
        else:
            host = self._enqueue_copy_out(captured.output if captured else self._output_sizes())
        self.wait()
        return self._in_shape(host)

    def answer(self, feeds: Feeds) -> Array:
        """Serve a request; see Session.answer. With a CUDA graph, one launch runs the copies and the step."""
        self.set_shape(feeds)
        captured: CapturedStep | None = self.graphs.current
        rows = self._plan.per_token and self._batch.starts is not None
        if captured is None or rows or not self._capture_request(captured):
            return self._answer_in_parts(feeds)
        assert captured.request is not None
        self._fill()
        self._filled = NO_ROWS
        captured.request.launch()
        self.wait()
        return self._in_shape(self._pinned_output.array[: math.prod(captured.output)])

    def _capture_request(self, captured: CapturedStep) -> bool:
        """Return whether the graph of a request exists. Capture it if the context has the sizes of the batch."""
        if captured.request is None and self._stepped and self._in_context == _sizes(self._batch):
            self.wait()
            captured.request = CudaGraph(self._stream, lambda: self._enqueue_request(captured.output))
        return captured.request is not None

    def _enqueue_request(self, output: tuple[int, ...]) -> None:
        self._enqueue_copy_in()
        self._enqueue_step()
        self._enqueue_copy_out(output)

    def _enqueue_copy_out(self, sizes: tuple[int, ...]) -> Array:
        """Enqueue the copy of the whole output, and return the pinned memory that it fills."""
        self._filled = NO_ROWS
        host = self._pinned_output.array[: math.prod(sizes)]
        self._stream.copy_out(host, self._device_output.pointer)
        return host

    def _in_shape(self, host: Array) -> Array:
        """Return values in pinned memory as the output of the batch."""
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
        self._plan.check_capturable(self._context, int(self._stream.handle))
        self.graphs.add(CapturedStep(CudaGraph(self._stream, self._enqueue_step), self._output_sizes()))

    def profile(self, steps: int) -> StepProfile:
        def step() -> None:
            self._enqueue_step()
            self.wait()

        steps_by_layer = profiled_steps(self._plan.api, self._context, step, steps)
        return StepProfile("TensorRT", median_step(steps_by_layer))


def _sizes(batch: ArrangedBatch) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in batch.arrays.items()}
