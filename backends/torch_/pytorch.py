"""PyTorch as users of transformers run it: eager with scaled dot product attention, or with torch.compile."""

from __future__ import annotations

import abc
import gc
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backends.base import (
    Array,
    Artifact,
    Backend,
    BuildSpec,
    Device,
    Feeds,
    Opening,
    Session,
    Source,
    SourceForm,
    Unavailable,
    Unsupported,
    versions_of,
)
from backends.finding import Finding
from backends.model.checkpoint_files import weight_files
from backends.options import Switch
from backends.torch_.description import CompileOptions
from backends.torch_.dynamic_linear import METHOD, check_int8, int8_findings
from backends.torch_.fp8 import INPUT_RANGES, check_fp8, ranges_of
from backends.torch_.torch_findings import compiler_findings, torch_findings

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")


@dataclass(frozen=True)
class Torch(Backend):
    """Backend for a model of transformers in PyTorch: with torch.compile if `compiled`, else eager."""

    compiled: bool
    distributions = ("torch",)
    also_recorded = ("transformers", "triton", "torchao")

    def check(self, spec: BuildSpec) -> None:
        if spec.precision == "int8" and self.compiled:
            check_int8(spec)
        elif spec.precision == "fp8" and self.compiled:
            check_fp8(spec.device)
        elif spec.precision not in PRECISIONS:
            raise Unsupported(
                f"PyTorch has no Q/DQ inference path for BERT in {spec.precision}; use backend=ort for INT8"
            )
        if spec.device.kind == "cpu" and spec.precision == "tf32":
            raise Unsupported("TF32 is a number format of GPU tensor cores; on a CPU use precision=fp32")
        if (
            spec.device.kind == "cuda"
            and spec.precision in ("tf32", "bf16")
            and spec.device.compute_capability < (8, 0)
        ):
            raise Unsupported(
                f"{spec.precision} needs compute capability 8.0; {spec.device.name} is older; use fp32 or fp16"
            )
        if not versions_of(("torch",)):
            raise Unavailable("torch is not installed in this interpreter: pip install torch==2.13.0")
        if self.compiled and spec.device.kind == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
            raise Unavailable("torch.compile on a CPU needs a C++ compiler: install g++ or use backend=torch_eager")

    def findings(self, device: Device) -> tuple[Finding, ...]:
        own = (*compiler_findings(device), *int8_findings(device)) if self.compiled else ()
        return (*torch_findings(device), *own)

    def source_form(self, spec: BuildSpec) -> SourceForm:
        return SourceForm(linear_ranges=spec.precision == "fp8")

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        """Return the weights of the checkpoint unchanged. PyTorch compiles in the process that runs the model."""
        notes: dict[str, object] = {"marked": list(source.marked)} if source.marked else {}
        notes |= {"int8": METHOD} if spec.precision == "int8" else {}
        notes |= {INPUT_RANGES: ranges_of(source)} if spec.precision == "fp8" else {}
        path = weight_files(source.checkpoint)[0]
        return Artifact(path, source.sha256, versions_of((*self.distributions, *self.also_recorded)), notes=notes)

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        import torch  # noqa: F401  timed separately

        yield "import", None
        yield "load", self._load(spec, artifact)

    def _load(self, spec: BuildSpec, artifact: Artifact) -> TorchSession:
        import torch

        from backends.torch_.model_precision import load_model

        torch.set_float32_matmul_precision("high" if spec.precision == "tf32" else "highest")
        if spec.threads:
            torch.set_num_threads(spec.threads)
        model = load_model(spec, artifact)
        if self.compiled:
            # One specialized graph per shape, as in a server with fixed shapes. Above the default limit of 8 graphs,
            # torch.compile would silently fall back to eager.
            torch._dynamo.config.recompile_limit = max(64, 2 * len(spec.shapes))
            options = spec.options_as(CompileOptions)
            dynamic = {Switch.auto: None, Switch.on: True, Switch.off: False}[options.dynamic]
            compiled = torch.compile(model, mode=options.compile_mode.value, dynamic=dynamic)
            return TorchSession(compiled, spec.device.kind, spec.device.index)
        return TorchSession(model, spec.device.kind, spec.device.index)


def TorchEager() -> Torch:
    return Torch(compiled=False)


def TorchCompile() -> Torch:
    return Torch(compiled=True)


@dataclass(frozen=True)
class CapturedStep:
    """CUDA graph of one step, and its output tensor."""

    graph: torch.cuda.CUDAGraph
    output: torch.Tensor


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

    def _fill(self, arrays: Mapping[str, Array]) -> None:
        with self._on_stream:
            for name, array in arrays.items():
                staging, on_device = self._buffers.staging[name], self._buffers.inputs[name]
                staging.numpy()[...] = array
                if on_device is not staging:
                    on_device.copy_(staging, non_blocking=True)

    def step(self) -> None:
        captured: CapturedStep | None = self.graphs.current
        with self._on_stream:
            if captured is not None:
                captured.graph.replay()
                self._buffers.output = captured.output
            else:
                self._buffers.output = self._forward()

    def wait(self) -> None:
        if self.stream is not None:
            self.stream.synchronize()

    def _copy_out(self, output: torch.Tensor) -> Array:
        """Return a tensor of the device in host memory."""
        torch, buffers = self._torch, self._buffers
        with self._on_stream:
            output = output.float() if output.dtype == torch.bfloat16 else output
            if self.stream is None:
                return output.numpy()
            if buffers.host is None:
                buffers.host = torch.empty_like(output, device="cpu", pin_memory=True)
            buffers.host.copy_(output, non_blocking=True)
        self.wait()
        return buffers.host.numpy()

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

    def changing(self, feeds: Feeds) -> Iterator[str]:
        self._unpadded = bool(feeds["attention_mask"].all())
        self._use(feeds, self._unpadded)
        yield "set shape"

    def copy_in(self, feeds: Feeds) -> None:
        self._fill(feeds)

    def _forward(self) -> torch.Tensor:
        inputs = dict(self._buffers.inputs)
        mask = inputs.pop("attention_mask")
        return self._model(**inputs, attention_mask=None if self._unpadded else mask[:, None, None, :].bool())

    def fetch(self) -> Array:
        assert self._buffers.output is not None
        return self._copy_out(self._buffers.output)
