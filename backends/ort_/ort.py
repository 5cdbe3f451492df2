"""onnxruntime through its CPU and CUDA execution providers."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

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
from backends.cache import ArtifactCache
from backends.finding import MISSING, OK, Finding
from backends.kernel_times import StepProfile, median_step
from backends.model.checkpoint_files import read_config
from backends.model.families import family_of
from backends.observed_calls import Around, ObservedMethod
from backends.options import Switch
from backends.ort_.description import OrtOptions
from backends.ort_.fused_operators import fuse_operators
from backends.ort_.trace import read_trace

if TYPE_CHECKING:
    import onnxruntime

    from backends.cuda import CudaStream, PinnedArray

INSTALLED = ("onnxruntime-gpu", "onnxruntime")


class OnnxRuntime(Backend):
    distributions = INSTALLED
    also_recorded = ("onnx",)

    def check(self, spec: BuildSpec) -> None:
        if not versions_of(INSTALLED):
            raise Unavailable("onnxruntime is not installed in this interpreter: pip install onnxruntime-gpu")
        if spec.precision == "bf16":
            raise Unsupported("onnxruntime.transformers converts BERT to float16 only; it has no bfloat16 conversion")
        if spec.device.kind == "cpu" and spec.precision in ("fp16", "tf32"):
            raise Unsupported(
                f"onnxruntime's CPU provider computes BERT in FP32 or INT8; {spec.precision} needs the CUDA provider"
            )
        if spec.precision == "tf32" and spec.device.compute_capability < (8, 0):
            raise Unsupported(f"tf32 needs compute capability 8.0; {spec.device.name} is older; use fp32 or fp16")
        if spec.precision == "fp8":
            raise Unsupported("onnxruntime has no FP8 MatMul for BERT; use backend=trt with TensorRT 10 or newer")
        if spec.precision == "int8" and not (spec.quantization.explicit or spec.quantization.dynamic):
            raise Unsupported("onnxruntime reads INT8 from Q/DQ in the graph: use quantization.scheme=explicit")
        if spec.precision == "int8" and spec.quantization.dynamic and spec.device.kind == "cuda":
            raise Unsupported(
                "onnxruntime computes dynamic INT8 on a CPU: use device=cpu or quantization.scheme=explicit"
            )

    def findings(self, device: Device) -> tuple[Finding, ...]:
        """Return the version of onnxruntime and its execution providers."""
        versions, install = versions_of(INSTALLED), f"{sys.executable} -m pip install onnxruntime-gpu"
        if not versions:
            return (Finding("ONNX Runtime", MISSING, "not installed", install),)
        import onnxruntime

        providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
        text = f"{next(iter(versions.values()))}, execution providers: {', '.join(providers)}"
        if device.kind == "cuda" and "CUDA" not in providers:
            return (Finding("ONNX Runtime", MISSING, f"{text}; it cannot use the GPU", install),)
        return (Finding("ONNX Runtime", OK, text),)

    def source_form(self, spec: BuildSpec) -> SourceForm:
        return SourceForm(quantized="int8" if spec.precision == "int8" else "")

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        """Return the ONNX file unchanged or, if fusion is on, rewritten by the BERT optimizer of onnxruntime.

        An INT8 file stays unchanged: the patterns of the optimizer do not match across its nodes.
        """
        assert source.onnx is not None
        fusion = spec.options_as(OrtOptions).fusion
        fuse = fusion is Switch.on or (fusion is Switch.auto and spec.device.kind == "cuda")
        if not fuse or spec.precision == "int8":
            return source.onnx
        onnx_file, half, gpu = source.onnx, spec.precision == "fp16", spec.device.kind == "cuda"

        def build(path: Path) -> dict[str, object]:
            return fuse_operators(onnx_file.path, source.checkpoint, path, half, gpu)

        embeddings = family_of(read_config(source.checkpoint)).fused_embeddings
        key = {"source": onnx_file.sha256, "half": half, "gpu": gpu, **({} if embeddings else {"embeddings": False})}
        return ArtifactCache(spec.cache).get("ort", key, "model.onnx", build, versions_of((*INSTALLED, "onnx")))

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        import onnxruntime  # noqa: F401  timed separately

        yield "import", None
        yield "load", OrtSession(spec, artifact.path)


Key = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass
class ShapeBuffers:
    """Buffers of one shape at fixed addresses, and their IO binding.

    Attributes:
        inputs, output: buffers on the device. On a CPU they share the memory of `staging` and `host`.
        staging: inputs in host memory, by name.
        host: output in host memory.
        pinned: owners of the memory of `staging` and `host` on a GPU.
    """

    inputs: dict[str, onnxruntime.OrtValue]
    output: onnxruntime.OrtValue
    binding: onnxruntime.IOBinding
    staging: dict[str, Array] = field(default_factory=dict)
    host: Array = field(default_factory=lambda: np.empty(0))
    pinned: list[PinnedArray] = field(default_factory=list)


class OrtSession(Session):
    """Session with IO binding to device buffers; each shape has its own. On a GPU, all work runs on one own stream.

    With CUDA graphs enabled, each run has a graph number. -1 means no graph; another number captures at its first run
    and replays later. The store of graphs contains the run options with its number. onnxruntime frees a graph only when
    the session is closed.
    """

    def __init__(self, spec: BuildSpec, path: Path) -> None:
        import onnxruntime

        self._ort = onnxruntime
        self._gpu = spec.device.kind == "cuda"
        self._cuda: CudaStream | None = None
        self._can_capture = self._gpu and spec.cuda_graph
        self._next_graph = 0
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if spec.threads:
            options.intra_op_num_threads = spec.threads
        self._trace = TemporaryDirectory(prefix="ort_trace_") if spec.profiled and not self._gpu else None
        if self._trace is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._trace.name) / "steps")
        providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
        if self._gpu:
            from backends.cuda import CudaStream

            onnxruntime.preload_dlls()
            self.stream = self._cuda = CudaStream(spec.device.index)
            settings = {
                "device_id": str(spec.device.index),
                "user_compute_stream": str(int(self._cuda.handle)),
                "use_tf32": "1" if spec.precision == "tf32" else "0",
                "enable_cuda_graph": "1" if self._can_capture else "0",
            }
            providers = [("CUDAExecutionProvider", settings)]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        if self._gpu and "CUDAExecutionProvider" not in self._session.get_providers():
            raise Unavailable(
                "onnxruntime could not load its CUDA provider and would run on the CPU; "
                "install the CUDA and cuDNN libraries that its release needs, see the log"
            )
        self._half = "float16" in self._session.get_outputs()[0].type
        self._plain = self._run_options(-1)
        self._bound = ShapeBuffers({}, None, None)
        self._key: Key = ()
        self._bound_by_key: dict[Key, ShapeBuffers] = {}
        features = self._session.get_outputs()[0].shape[-1]
        self._features = features if isinstance(features, int) else self._probe_features()
        self._per_token = spec.output.per_token

    def _run_options(self, graph: int) -> onnxruntime.RunOptions:
        run = self._ort.RunOptions()
        if self._gpu:
            run.add_run_config_entry("disable_synchronize_execution_providers", "1")
            if self._can_capture:
                run.add_run_config_entry("gpu_graph_id", str(graph))
        return run

    def _probe_features(self) -> int:
        """Return the last size of the output from one run at 1x2, because it is symbolic in the exported file."""
        ones = np.ones((1, 2), np.int32)
        (output,) = self._session.run(None, {i.name: ones for i in self._session.get_inputs()}, self._plain)
        return int(output.shape[-1])

    def close(self) -> None:
        with suppress(RuntimeError):  # an earlier step has already raised the error
            self.wait()
        self._bound_by_key, self._bound, self._key = {}, ShapeBuffers({}, None, None), ()
        self.graphs.clear()
        del self._session
        if self._trace is not None:
            self._trace.cleanup()
        gc.collect()

    def changing(self, feeds: Feeds) -> Iterator[str]:
        key = tuple((name, array.shape) for name, array in feeds.items())
        if key != self._key:
            self._key = key
            if key not in self._bound_by_key:
                self._bound_by_key[key] = self._bind(feeds)
            self._bound = self._bound_by_key[key]
        self.graphs.select(key)
        yield "set shape"

    def copy_in(self, feeds: Feeds) -> None:
        for name, values in feeds.items():
            staging = self._bound.staging[name]
            staging[...] = values
            if self._cuda is not None:
                self._cuda.copy_in(self._bound.inputs[name].data_ptr(), staging)

    def _bind(self, feeds: Feeds) -> ShapeBuffers:
        """Allocate and bind the buffers of a new shape."""
        batch, sequence = feeds["input_ids"].shape
        shape = (batch, sequence, self._features) if self._per_token else (batch, self._features)
        dtype = np.float16 if self._half else np.float32
        value, pinned = self._ort.OrtValue, []
        if self._gpu:
            from backends.cuda import PinnedArray

            pinned = [*(PinnedArray(array.shape, np.int32) for array in feeds.values()), PinnedArray(shape, dtype)]
            *arrays, host = (buffer.array for buffer in pinned)
            values = [value.ortvalue_from_shape_and_type(array.shape, array.dtype, "cuda", 0) for array in arrays]
            output = value.ortvalue_from_shape_and_type(shape, dtype, "cuda", 0)
        else:
            arrays, host = [np.zeros(array.shape, np.int32) for array in feeds.values()], np.zeros(shape, dtype)
            values, output = [value.ortvalue_from_numpy(array) for array in arrays], value.ortvalue_from_numpy(host)
        staging, inputs = dict(zip(feeds, arrays, strict=True)), dict(zip(feeds, values, strict=True))
        binding = self._session.io_binding()
        for name, buffer in inputs.items():
            binding.bind_ortvalue_input(name, buffer)
        binding.bind_ortvalue_output(self._session.get_outputs()[0].name, output)
        return ShapeBuffers(inputs, output, binding, staging, host, pinned)

    def step(self) -> None:
        self._session.run_with_iobinding(self._bound.binding, self.graphs.current or self._plain)

    @contextmanager
    def observed(self, around: Around) -> Iterator[bool]:
        """Observe the native session, which `run_with_iobinding` of the Python package calls.

        The package compares it with the one of the binding, if the binding has one.
        """
        native, binding = self._session._sess, self._bound.binding
        observed = ObservedMethod(native, "run_with_iobinding", around)
        owners = [(self._session, "_sess"), *([(binding, "_session")] if hasattr(binding, "_session") else [])]
        for owner, name in owners:
            setattr(owner, name, observed)
        try:
            yield True
        finally:
            for owner, name in owners:
                setattr(owner, name, native)

    def wait(self) -> None:
        if self.stream is not None:
            self.stream.synchronize()

    def fetch(self) -> Array:
        if self._cuda is not None:
            self._cuda.copy_out(self._bound.host, self._bound.output.data_ptr())
            self.wait()
        return self._bound.host

    def profile(self, steps: int) -> StepProfile:
        if self._trace is None:
            raise Unsupported("ONNX Runtime profiles its operators on a CPU only; on a GPU use profile=nsys or =ncu")
        for _ in range(steps):
            self.step()
        trace = Path(self._session.end_profiling())
        return StepProfile("ONNX Runtime", median_step(read_trace(trace)[-steps:]))

    def capture(self) -> None:
        if not self._can_capture:
            raise Unsupported("CUDA graphs need a GPU, and the session must be opened with cuda_graph=true")
        self.wait()
        self.graphs.add(self._run_options(self._next_graph))
        self._next_graph += 1
        self.step()
        self.wait()
