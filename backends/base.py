"""The interface of a backend: every path is built and measured through it.

A backend builds an `Artifact` from a `Source` (a checkpoint and, if requested, its ONNX file) and opens the artifact
as a `Session`. A session never reads a clock, and all sessions have the same verbs, so one clock times every backend.
This module needs only CPython 3.10 and numpy.
"""

from __future__ import annotations

import abc
import contextlib
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, final

import numpy.typing as npt

from backends.compute_share import BuildLimit, ComputeShare
from backends.finding import Finding
from backends.graph_store import GraphStore
from backends.json_codec import from_json
from backends.kernel_times import StepProfile
from backends.model_output import LAST_HIDDEN, Output
from backends.observed_calls import Around
from backends.quantization_options import QuantizationOptions
from backends.stream import Stream

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
"""int32 arrays [batch, sequence] by input name: input_ids, attention_mask and, if it is an input, token_type_ids."""


Options = TypeVar("Options")


class Unsupported(Exception):
    """Request that this backend, release or device does not support; the message gives the reason."""


class Unavailable(Exception):
    """Missing or damaged requirement (a package, a file, a checkpoint); the message explains how to get it."""


@dataclass(frozen=True)
class Device:
    """Device on which a cell runs. `kind` is "cpu" or "cuda". On a CPU, only `features` has a value besides it."""

    kind: str = "cpu"
    index: int = 0
    name: str = ""
    uuid: str = ""
    compute_capability: tuple[int, int] = (0, 0)
    features: tuple[str, ...] = ()  # CPU instruction sets that select its kernels, e.g. "avx512_vnni"
    driver: str = ""

    @property
    def reference_kind(self) -> str:
        """Kind of the device for FP32 references: the CPU for a GPU without UUID, which is named and not present."""
        return "cpu" if self.kind == "cuda" and not self.uuid else self.kind


@dataclass(frozen=True, order=True)
class Shape:
    """One input shape: `batch` sequences of `sequence` tokens, padding included."""

    batch: int
    sequence: int

    @classmethod
    def parse(cls, shape: str | Sequence[int]) -> Shape:
        """Return a shape from its text, such as "8x128", or from its two sizes, such as [8, 128].

        Raises:
            ValueError: `shape` is neither.
        """
        sizes = shape.split("x") if isinstance(shape, str) else [*shape]
        if len(sizes) != 2 or not all(str(size).isdecimal() for size in sizes):
            raise ValueError(f"{shape!r} is not a shape, such as 8x128")
        return cls(*map(int, sizes))

    def __str__(self) -> str:
        return f"{self.batch}x{self.sequence}"


@dataclass(frozen=True)
class Artifact:
    """File in the cache. Its address is a digest of its inputs.

    Attributes:
        path: the file that a session opens.
        sha256: SHA-256 of the file at `path`, in hexadecimal.
        versions: versions of the packages that produced it, by distribution name.
        seconds: wall time of its production.
        notes: facts for the record, written by the producer; JSON-able.
    """

    path: Path
    sha256: str
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    notes: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "path": str(self.path)}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Artifact:
        return from_json(cls, {**data, "path": str(data["path"])})


@dataclass(frozen=True)
class SourceForm:
    """Source format that a backend requests: an ONNX file with these properties, or plain weights.

    Attributes:
        rewrites: names from backends/onnx_/surgery.py; these rewrites are applied first.
        types: "fp32", or "fp16" or "bf16" for a backend that takes its types from the graph.
        keep_fp32: patterns (fnmatch) of the names of nodes that stay FP32 if `types` is not "fp32".
        quantized: "int8" or "fp8" for Q/DQ pairs around the selected products, else "".
        calibration: whether to add representative inputs, for a backend that calibrates on its own.
        arrays: whether to give plain weights instead of a graph, for a backend that builds its own network.
        ranges: whether to add the largest activations to the plain weights.
        floating: names from NODES in backends/model/layer_names.py; these nodes are never quantized.
        linear_ranges: whether to add the largest inputs of linear layers. No graph is exported then.
    """

    rewrites: tuple[str, ...] = ()
    types: str = "fp32"
    keep_fp32: tuple[str, ...] = ()
    quantized: str = ""
    calibration: bool = False
    arrays: bool = False
    ranges: bool = False
    floating: tuple[str, ...] = ()
    linear_ranges: bool = False


@dataclass(frozen=True)
class Source:
    """Input of a build: a checkpoint folder (config.json, model.safetensors) and the files that a SourceForm requests.

    Attributes:
        checkpoint: the folder.
        sha256: digest of the weights.
        onnx: the exported graph, with the properties of the SourceForm.
        calibration: an .npz of int32 arrays [batches, batch, sequence] by input name.
        arrays: the weights by name, see backends/model/weights.py.
        ranges: the largest activations, see backends/onnx_/ranges.py and backends/onnx_/linear_ranges.py.
        marked: points (see backends/model/layer_names.py) whose values the output concatenates. `onnx` already has this
            output.
    """

    checkpoint: Path
    sha256: str
    onnx: Artifact | None = None
    calibration: Artifact | None = None
    arrays: Artifact | None = None
    ranges: Artifact | None = None
    marked: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuildSpec:
    """All settings of a cell that affect the artifact or the session.

    Attributes:
        options: an instance of the options class in the description of the backend; `options_as` gives it its type.
        quantization: used only if `precision` is "int8" or "fp8".
        tokens: number of tokens without padding of a batch, by shape; only shapes with padding are listed.
        process: number of the measuring process, from 0.
        threads: number of CPU threads; 0 for the default of the library.
        output: output of the model.
        profiled: whether `Session.profile` will be called. Some libraries can only be profiled from the opening on.
        build_limit: the compute units for the build; None for all. Only builders with `limits_builds` read it.
    """

    precision: str
    device: Device
    shapes: tuple[Shape, ...]
    cuda_graph: bool
    cache: Path
    options: object = None
    quantization: QuantizationOptions = field(default_factory=QuantizationOptions)
    tokens: Mapping[Shape, int] = field(default_factory=dict)
    process: int = 0
    threads: int = 0
    output: Output = LAST_HIDDEN
    profiled: bool = False
    build_limit: BuildLimit | None = None

    def options_as(self, kind: type[Options]) -> Options:
        """Return `options`. Raise TypeError if they are not of this class: they belong to another backend."""
        if not isinstance(self.options, kind):
            raise TypeError(f"the options are {type(self.options).__name__}, not {kind.__name__}")
        return self.options


class Session(abc.ABC):
    """Model that is ready to run, at one shape after another.

    `load` prepares the session for a shape and copies the inputs in; `set_shape` and `copy_in` are its two parts.
    `set_shape` runs `changing` to its end; a session implements only `changing`.
    `step` enqueues one forward pass on the inputs that were loaded last. `wait` returns when all enqueued work is done.
    `fetch` waits for the step and copies its output to host memory. `answer` does all of this for one request.
    After `capture`, each step replays one CUDA graph until the shape changes.
    """

    stream: Stream | None = None
    """None on a CPU, where `step` returns only when the work is done."""

    @cached_property
    def graphs(self) -> GraphStore[Any]:
        """Graphs of the session, which the session itself selects and adds."""
        return GraphStore()

    @property
    def replays(self) -> bool:
        """Whether the next step launches a graph."""
        return self.graphs.current is not None

    @property
    def keeps_graphs(self) -> bool:
        """Whether the session keeps each graph and replays it when inputs of the same sizes return.

        After it is set to False, steps run without a graph until the next capture.
        """
        return self.graphs.keep

    @keeps_graphs.setter
    def keeps_graphs(self, keep: bool) -> None:
        self.graphs.keep = keep
        if not keep:
            self._step_without_graph()

    def _step_without_graph(self) -> None:
        """Run the next steps without a graph."""
        self.graphs.drop()

    def load(self, feeds: Feeds) -> None:
        """Prepare the session for the shape of `feeds` and copy them in."""
        self.set_shape(feeds)
        self.copy_in(feeds)

    @abc.abstractmethod
    def changing(self, feeds: Feeds) -> Iterator[str]:
        """Prepare the session for arrays of these sizes, in parts; yield the name of each part when it is done.

        Do nothing if the sizes are unchanged. The session is prepared when the iterator has ended.
        """

    @final
    def set_shape(self, feeds: Feeds) -> None:
        """Run `changing` to its end."""
        for _ in self.changing(feeds):
            pass

    @abc.abstractmethod
    def copy_in(self, feeds: Feeds) -> None:
        """Enqueue the copy of `feeds` to the device. The last call of `set_shape` must have had the same sizes."""

    @abc.abstractmethod
    def step(self) -> None: ...

    @abc.abstractmethod
    def wait(self) -> None: ...

    @abc.abstractmethod
    def fetch(self) -> Array:
        """Return the output of the last step (see Output in backends/model_output.py); bfloat16 becomes float32.

        It is in memory of the session, which the next step or `fetch` may overwrite. Values of padding have no meaning.
        """

    def answer(self, feeds: Feeds) -> Array:
        """Serve a request: token ids in host memory in, answer in host memory out; see `fetch`.

        A session overrides it if it serves a whole request faster than `load`, `step` and `fetch`.
        """
        return self._answer_in_parts(feeds)

    def _answer_in_parts(self, feeds: Feeds) -> Array:
        self.load(feeds)
        self.step()
        return self.fetch()

    def capture(self) -> None:
        """Record one step as a CUDA graph. Call it after a step without a graph at this shape.

        Raises:
            Unsupported: a session of this backend cannot capture a graph.
        """
        raise Unsupported("CUDA graphs need a GPU and a backend that can capture them")

    def profile(self, steps: int) -> StepProfile:
        """Run steps without a graph under the profiler of the library, and return the median times.

        Call it once, after steps at this shape, in a session that was opened with `BuildSpec.profiled`. The profiler
        does not slow down the steps after it.

        Raises:
            Unsupported: the library has no profiler of kernels.
        """
        raise Unsupported("this backend has no profiler of kernels; on a GPU use profile=nsys or profile=ncu")

    @contextlib.contextmanager
    def observed(self, around: Around) -> Iterator[bool]:
        """In this context, make the one call of the library in each `step` through `around`.

        It gives False, and changes nothing, if a step makes several calls, as a model of PyTorch does.
        """
        yield False

    def python_share(self, steps: int) -> float | None:
        """Run steps without a graph under the profiler of the library, for a step that makes several calls.

        Returns:
            Median share of the host time of `step` in which no operator and no CUDA function runs. The profiler makes
            both parts slower. None if the library has no such profiler.
        """
        return None

    def close(self) -> None:  # noqa: B027  most sessions are freed with their process
        """Free all memory of the session. Raise nothing."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class Backend(abc.ABC):
    """Library that runs a model."""

    distributions: tuple[str, ...] = ()
    """Names under which the library can be installed. The first one that is installed gives the release."""

    also_recorded: tuple[str, ...] = ()
    """More packages whose versions are recorded."""

    @abc.abstractmethod
    def check(self, spec: BuildSpec) -> None:
        """Refuse a cell that cannot run. Every probe calls it before work starts, so it must not import slow modules.

        Raises:
            Unsupported: the backend has no implementation for the precision or for an option.
            Unavailable: a requirement of the backend is not installed.
        """

    def source_form(self, spec: BuildSpec) -> SourceForm:
        """Return the source format that the build needs for `spec`. Called after `check`."""
        return SourceForm()

    def start_builder(self, spec: BuildSpec) -> None:  # noqa: B027  most builders start at once
        """Start the builder that the next `build` uses, while the source is exported in another process.

        It is called if the description says so (`starts_builder`). `spec` may have other shapes than the build.
        """

    @abc.abstractmethod
    def build(self, spec: BuildSpec, source: Source) -> Artifact: ...

    @abc.abstractmethod
    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        """Open a session in parts; yield the name of each part when it is done, and with the last one the session."""

    def tactics(self, artifact: Artifact) -> tuple[str, ...]:
        """Return the implementation that the build chose for each layer, one text for each layer; empty if unknown."""
        return ()

    def divide(self, spec: BuildSpec, shares: Sequence[float]) -> tuple[ComputeShare, ...]:
        """Return parts of the device without common compute units, one for each share of its compute units.

        Raises:
            Unsupported: a CPU is not divided.
            Unavailable: the driver or the device cannot be divided.
        """
        _require_gpu(spec.device)
        contexts = importlib.import_module("backends.green_contexts")
        parts: tuple[ComputeShare, ...] = contexts.divide(spec.device.index, shares)
        return parts

    def limit_process(self, spec: BuildSpec, share: float | None) -> contextlib.AbstractContextManager[ComputeShare]:
        """Return a context that limits this process to a share of the compute units. Enter it before a session opens.

        Processes that it starts share the device with each other. None does not limit this process.

        Raises:
            Unsupported: a CPU is not divided.
            Unavailable: MPS is not installed, may not be started, or does not serve this process.
        """
        _require_gpu(spec.device)
        daemon = importlib.import_module("backends.mps_daemon")
        context: contextlib.AbstractContextManager[ComputeShare] = daemon.limited_process(share)
        return context

    def findings(self, device: Device) -> tuple[Finding, ...]:
        """Return facts about the installed library for a diagnosis of this machine. It may import the library.

        Args:
            device: the device that cells would use.
        """
        return ()

    @final
    def open(self, spec: BuildSpec, artifact: Artifact) -> Session:
        """Run `opening` to its end and return the session."""
        return opened_session(self.opening(spec, artifact))


def _require_gpu(device: Device) -> None:
    if device.kind != "cuda":
        raise Unsupported("only the SMs of an NVIDIA GPU can be divided; choose device=cuda")


Opening = Iterator[tuple[str, Session | None]]
"""Parts of the opening of a session: the name of each part, and the session with the last one."""


def opened_session(opening: Opening) -> Session:
    """Run all parts of `opening` and return the session."""
    *_, (_, session) = opening
    assert session is not None
    return session


def versions_of(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of each package, without importing it. Missing packages are omitted."""
    versions = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
