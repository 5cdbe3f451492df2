"""Sessions of PyTorch: a stream of their own, buffers at fixed addresses, and CUDA graphs."""

from __future__ import annotations

import abc
import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from backends.base import Array, Feeds, Session, Unsupported
from backends.kernel_times import StepProfile, median_step
from backends.observed_calls import Around, ObservedMethod
from backends.torch_.torch_profiler import profiled_steps, python_share_of

if TYPE_CHECKING:
    import torch


@dataclass
class CapturedStep:
    """CUDA graph of one step, and its output tensor.

    `request` is the graph of a request. The first request after the capture captures it.
    """

    graph: torch.cuda.CUDAGraph
    output: torch.Tensor
    request: CapturedRequest | None = None


@dataclass(frozen=True)
class CapturedRequest:
    """CUDA graph of a request: the copy of the inputs, a step, and the copy of its output to pinned memory, `host`."""

    graph: torch.cuda.CUDAGraph
    output: torch.Tensor
    host: torch.Tensor


@dataclass
class Buffers:
    """Buffers of one shape at fixed addresses, and the output of the last step.

    Attributes:
        inputs: inputs on the device.
        staging: inputs in host memory, pinned on a GPU. On a CPU they are `inputs`.
        host: pinned memory for the output on a GPU.
    """

    inputs: dict[str, torch.Tensor]
    staging: dict[str, torch.Tensor]
    output: torch.Tensor | None = None
    host: torch.Tensor | None = None


class TorchSteps(Session):
    """Base class of PyTorch sessions. It has its own stream, buffers for each input size, and graphs of `_forward`."""

    def __init__(self, kind: str, index: int) -> None:
        import torch

        self._torch = torch
        self._device = torch.device(kind, index) if kind == "cuda" else torch.device("cpu")
        self._buffers = Buffers({}, {})
        self._key: tuple[object, ...] = ()
        self._buffers_by_key: dict[tuple[object, ...], Buffers] = {}
        self._mode = torch.inference_mode()
        self._mode.__enter__()
        self._on_stream: AbstractContextManager[object] = nullcontext()
        if kind == "cuda":
            from backends.cuda import CudaStream

            self.stream = CudaStream(index)
            self._own = torch.cuda.ExternalStream(int(self.stream.handle), self._device)  # type: ignore[no-untyped-call]
            # Set around each piece of work, because other sessions of this process have their own streams.
            self._on_stream = torch.cuda.stream(self._own)

    @abc.abstractmethod
    def _forward(self) -> torch.Tensor:
        """Return the output for the current input buffers, on the device."""

    def close(self) -> None:
        with suppress(RuntimeError):  # an earlier step has already raised the error
            self.wait()
        self._buffers_by_key, self._buffers, self._key = {}, Buffers({}, {}), ()
        self.graphs.clear()
        self._mode.__exit__(None, None, None)
        gc.collect()
        if self.stream is not None:
            with suppress(RuntimeError):
                self._torch.cuda.empty_cache()

    def _use(self, arrays: Mapping[str, Array], *properties: object) -> None:
        """Switch to the buffers for arrays of these sizes and `properties`. Allocate them at the first use."""
        key = (*((name, array.shape) for name, array in arrays.items()), *properties)
        if key != self._key:
            self._buffers.host = self._buffers.output = None
            self._key = key
            if key not in self._buffers_by_key:
                self._buffers_by_key[key] = self._allocate(arrays)
            self._buffers = self._buffers_by_key[key]
        self.graphs.select(key)

    def _allocate(self, arrays: Mapping[str, Array]) -> Buffers:
        torch = self._torch
        staging = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        if self._device.type == "cpu":
            return Buffers(staging, staging)
        staging = {name: tensor.pin_memory() for name, tensor in staging.items()}
        with self._on_stream:
            return Buffers({name: torch.empty_like(t, device=self._device) for name, t in staging.items()}, staging)

    def copy_in(self, feeds: Feeds) -> None:
        self._fill(feeds)
        with self._on_stream:
            self._enqueue_copy_in()

    def _arrays(self, feeds: Feeds) -> Mapping[str, Array]:
        """Return the arrays to copy in for `feeds`, which `changing` got."""
        return feeds

    def _fill(self, feeds: Feeds) -> None:
        for name, array in self._arrays(feeds).items():
            self._buffers.staging[name].numpy()[...] = array

    def _enqueue_copy_in(self) -> None:
        for name, staging in self._buffers.staging.items():
            if (on_device := self._buffers.inputs[name]) is not staging:
                on_device.copy_(staging, non_blocking=True)

    def step(self) -> None:
        captured: CapturedStep | None = self.graphs.current
        with self._on_stream:
            if captured is not None:
                captured.graph.replay()
                self._buffers.output = captured.output
            else:
                self._buffers.output = self._forward()

    @contextmanager
    def observed(self, around: Around) -> Iterator[bool]:
        """Observe the replay of the graph. Without a graph, a step makes a call for each operator."""
        captured: CapturedStep | None = self.graphs.current
        if captured is None:
            yield False
            return
        graph = captured.graph
        captured.graph = cast("torch.cuda.CUDAGraph", ObservedMethod(graph, "replay", around))
        try:
            yield True
        finally:
            captured.graph = graph

    def python_share(self, steps: int) -> float | None:
        return None if self._has_hidden_kernels() else python_share_of(self, steps)

    def _has_hidden_kernels(self) -> bool:
        """Return whether the profiler does not see all kernels: those that PyTorch compiled for a CPU."""
        return False

    def wait(self) -> None:
        if self.stream is not None:
            self.stream.synchronize()

    def fetch(self) -> Array:
        assert self._buffers.output is not None
        with self._on_stream:
            host = self._enqueue_copy_out(self._in_shape(self._buffers.output))
        self.wait()
        return host.numpy()

    def _in_shape(self, output: torch.Tensor) -> torch.Tensor:
        """Return the output of `_forward` in the shape that `fetch` returns, on the device."""
        return output

    def _enqueue_copy_out(self, output: torch.Tensor) -> torch.Tensor:
        """Enqueue the copy of `output` to host memory, and return the tensor that it fills."""
        torch, buffers = self._torch, self._buffers
        output = output.float() if output.dtype == torch.bfloat16 else output
        if self.stream is None:
            return output
        if buffers.host is None:
            buffers.host = torch.empty_like(output, device="cpu", pin_memory=True)
        buffers.host.copy_(output, non_blocking=True)
        return buffers.host

    def answer(self, feeds: Feeds) -> Array:
        """Serve a request; see Session.answer. With a CUDA graph, one launch runs the copies and the step."""
        self.set_shape(feeds)
        captured: CapturedStep | None = self.graphs.current
        if captured is None:
            return self._answer_in_parts(feeds)
        self._fill(feeds)
        request = captured.request = captured.request or self._capture_request(captured)
        with self._on_stream:
            request.graph.replay()
        self._buffers.output, self._buffers.host = request.output, request.host
        self.wait()
        return request.host.numpy()

    def _capture_request(self, captured: CapturedStep) -> CapturedRequest:
        torch, graph = self._torch, self._torch.cuda.CUDAGraph()
        self.step()
        self.fetch()  # allocates pinned memory for the output, which a capture cannot do
        with self._on_stream, torch.cuda.graph(graph, pool=captured.graph.pool(), stream=self._own):
            self._enqueue_copy_in()
            output = self._forward()
            host = self._enqueue_copy_out(self._in_shape(output))
        return CapturedRequest(graph, output, host)

    def profile(self, steps: int) -> StepProfile:
        return StepProfile("PyTorch", median_step(profiled_steps(self, steps)))

    def capture(self) -> None:
        torch = self._torch
        if self.stream is None:
            raise Unsupported("CUDA graphs need a GPU; set cuda_graph=false on a CPU")
        self.wait()
        graph = torch.cuda.CUDAGraph()
        with self._on_stream, torch.cuda.graph(graph, stream=self._own):
            output = self._forward()
        self.graphs.add(CapturedStep(graph, output))
        self._buffers.output = output


class TorchSession(TorchSteps):
    """Session of a model of transformers (ModelWithOutput in backends/model/output_head.py).

    If no sequence is padded, the model gets no attention mask, as in a server that knows its lengths. Attention can
    then use its fastest kernel. Otherwise the model gets a boolean mask [batch, 1, 1, sequence].
    """

    def __init__(self, model: Callable[..., torch.Tensor], kind: str, index: int) -> None:
        super().__init__(kind, index)
        self._model = model
        self._unpadded = False

    def close(self) -> None:
        if hasattr(self._model, "_orig_mod"):
            # Otherwise, the graphs of the closed model count towards the recompilation limit of the next one.
            self._torch._dynamo.reset()
        del self._model
        super().close()

    def _has_hidden_kernels(self) -> bool:
        return self.stream is None and hasattr(self._model, "_orig_mod")

    def changing(self, feeds: Feeds) -> Iterator[str]:
        self._unpadded = bool(feeds["attention_mask"].all())
        self._use(feeds, self._unpadded)
        yield "set shape"

    def _forward(self) -> torch.Tensor:
        inputs = dict(self._buffers.inputs)
        mask = inputs.pop("attention_mask")
        return self._model(**inputs, attention_mask=None if self._unpadded else mask[:, None, None, :].bool())
