"""Session of onnxruntime with one execution provider, and the options of its runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array, BuildSpec, Feeds, Session, Shape, Unsupported
from backends.kernel_times import StepProfile, median_step
from backends.observed_calls import Around, ObservedMethod
from backends.ort_.open_provider import open_provider
from backends.ort_.providers import EnginePlace, setup_of
from backends.ort_.trace import read_trace

if TYPE_CHECKING:
    import onnxruntime

    from backends.cuda import CudaStream, PinnedArray

ANY_SHAPE = Shape(1, 2)
"""Shape of a run that only shows the size of the output, for providers without profiles."""


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


@dataclass(frozen=True)
class SessionSettings:
    """Settings of a session that its backend decides.

    Attributes:
        stream: CUDA stream; None on a CPU.
        graph: whether CUDA graphs are enabled.
        no_graph: why they are not; empty if the device or the options say so.
        graph_keys: options of a run that select its graph.
        place: profile and folders of an engine; None for providers without engines.
        binds_copies: whether the provider may read a copy of an input that onnxruntime made when it was bound. Inputs
            are then bound again after each change. onnxruntime-ep-openvino 1.8.1 computes old values otherwise.
    """

    stream: CudaStream | None = None
    graph: bool = False
    no_graph: str = ""
    graph_keys: tuple[str, ...] = ("gpu_graph_id",)
    place: EnginePlace | None = None
    binds_copies: bool = False


def session_options(spec: BuildSpec) -> onnxruntime.SessionOptions:
    """Return options of a session that logs errors only and has the threads of `spec`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if spec.threads:
        options.intra_op_num_threads = spec.threads
    return options


class OrtSession(Session):
    """Session with IO binding to device buffers; each shape has its own. On a GPU, all work runs on one own stream.

    With CUDA graphs enabled, each run has a graph number. -1 means no graph; another number captures at its first run
    and replays later. The store of graphs contains the run options with its number. onnxruntime frees a graph only when
    the session is closed.
    """

    def __init__(self, spec: BuildSpec, path: Path, settings: SessionSettings) -> None:
        import onnxruntime

        self._ort = onnxruntime
        self._cuda = settings.stream
        self._gpu = self._cuda is not None
        self.stream = self._cuda
        self._can_capture, self._no_capture = self._gpu and settings.graph, settings.no_graph
        self._graph_keys, self._binds_copies = settings.graph_keys, settings.binds_copies
        self._next_graph = 0
        options = session_options(spec)
        self._trace = TemporaryDirectory(prefix="ort_trace_") if spec.profiled and not self._gpu else None
        if self._trace is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._trace.name) / "steps")
        handle = int(self._cuda.handle) if self._cuda is not None else 0
        setup = setup_of(spec, handle, self._can_capture, settings.place)
        self._session = open_provider(path, options, setup, spec.device.index)
        self._half = "float16" in self._session.get_outputs()[0].type
        self._plain = self._run_options(-1)
        self._bound = ShapeBuffers({}, None, None)
        self._key: Key = ()
        self._bound_by_key: dict[Key, ShapeBuffers] = {}
        features = self._session.get_outputs()[0].shape[-1]
        shape = settings.place.profile.min if settings.place else ANY_SHAPE
        self._features = features if isinstance(features, int) else self._probe_features(shape)
        self._per_token = spec.output.per_token

    def _run_options(self, graph: int) -> onnxruntime.RunOptions:
        run = self._ort.RunOptions()
        if self._gpu:
            run.add_run_config_entry("disable_synchronize_execution_providers", "1")
            if self._can_capture:
                for key in self._graph_keys:
                    run.add_run_config_entry(key, str(graph))
        return run

    def _probe_features(self, shape: Shape) -> int:
        """Return the last size of the output from one run, because it is symbolic in the exported file."""
        ones = np.ones((shape.batch, shape.sequence), np.int32)
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
            if self._binds_copies:
                self._bound.binding.bind_ortvalue_input(name, self._bound.inputs[name])

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
            raise Unsupported(
                self._no_capture or "CUDA graphs need a GPU, and the session must be opened with cuda_graph=true"
            )
        self.wait()
        self.graphs.add(self._run_options(self._next_graph))
        self._next_graph += 1
        self.step()
        self.wait()
