"""The boundary that every path is built and measured across.

A backend turns a `Source` (a checkpoint and, where asked for, its ONNX file) into an `Artifact`, and opens it as a
`Session`, which never reads a clock: whoever times it sees the same six verbs. Needs CPython 3.10 and numpy alone.
"""

from __future__ import annotations

import abc
import contextlib
import importlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy.typing as npt

from backends.stream import Stream

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
"""int32 arrays [batch, sequence] by input name: input_ids, attention_mask and, if the model has it, token_type_ids."""


class Unsupported(Exception):
    """This backend, release or device cannot do what was asked; the message is the reason."""


class Unavailable(Exception):
    """What the backend needs is not installed or not found; the message says how to get it."""


@dataclass(frozen=True)
class Device:
    """Where a cell runs. `kind` is "cpu" or "cuda"; the rest is empty on a CPU."""

    kind: str = "cpu"
    index: int = 0
    name: str = ""
    uuid: str = ""
    compute_capability: tuple[int, int] = (0, 0)
    features: tuple[str, ...] = ()  # instruction sets of a CPU that decide which INT8 kernels it has: "avx512_vnni"
    driver: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Device:
        major, minor = data["compute_capability"]
        return cls(**{**data, "compute_capability": (major, minor), "features": tuple(data["features"])})


@dataclass(frozen=True, order=True)
class Shape:
    """One input shape: `batch` sequences of `sequence` tokens, padding included."""

    batch: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.batch}x{self.sequence}"


@dataclass(frozen=True)
class Artifact:
    """A file or folder in the cache, addressed by what went into it.

    Attributes:
        path: the file a session opens.
        sha256: of the file at `path`, in hexadecimal.
        versions: version by distribution name of what produced it.
        seconds: wall time it took to produce.
        notes: what its producer wants a reader of the record to know.
    """

    path: Path
    sha256: str
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Artifact:
        return cls(**{**data, "path": Path(data["path"])})


@dataclass(frozen=True)
class SourceForm:
    """What a backend wants to build from: an ONNX file, and what it must look like, or plain weights.

    Attributes:
        rewrites: names from backends/surgery.py, applied first.
        types: "fp32", or "fp16" or "bf16" for a backend that takes its types from the graph.
        keep_fp32: patterns (fnmatch) of the names of nodes that stay FP32 under other `types`.
        quantized: "int8" or "fp8" for Q/DQ pairs around the chosen products, else "".
        calibration: whether representative inputs must come along, for a backend that finds ranges itself.
        arrays: whether plain weights are wanted instead of a graph, by a backend that builds its own.
        ranges: whether the largest activations are wanted with them.
    """

    rewrites: tuple[str, ...] = ()
    types: str = "fp32"
    keep_fp32: tuple[str, ...] = ()
    quantized: str = ""
    calibration: bool = False
    arrays: bool = False
    ranges: bool = False
    floating: tuple[str, ...] = ()  # names out of backends/quantize.py's NODES that are never quantized

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SourceForm:
        return cls(**{**data, **{name: tuple(data[name]) for name in ("rewrites", "keep_fp32", "floating")}})


@dataclass(frozen=True)
class Source:
    """What a backend builds from: a checkpoint folder (config.json, model.safetensors) and what its form asks for.

    Attributes:
        onnx: the exported graph in that form.
        calibration: an .npz of int32 arrays [batches, batch, sequence] by input name.
        arrays: the weights by name, see backends/weights.py.
        ranges: the largest activations, see backends/ranges.py.
        marked: points of backends/ranges.py that are to be the output, side by side; those of `onnx` are already.
    """

    checkpoint: Path
    sha256: str
    onnx: Artifact | None = None
    calibration: Artifact | None = None
    arrays: Artifact | None = None
    ranges: Artifact | None = None
    marked: tuple[str, ...] = ()

    FILES: ClassVar[tuple[str, ...]] = ("onnx", "calibration", "arrays", "ranges")

    def to_json(self) -> dict[str, Any]:
        named = {name: (file := getattr(self, name)) and file.to_json() for name in self.FILES}
        return {"checkpoint": str(self.checkpoint), "sha256": self.sha256, **named, "marked": list(self.marked)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Source:
        files = {name: Artifact.from_json(data[name]) if data[name] else None for name in cls.FILES}
        return cls(Path(data["checkpoint"]), data["sha256"], **files, marked=tuple(data["marked"]))


@dataclass(frozen=True)
class BuildSpec:
    """Everything of a cell that changes what is built or opened.

    `options` are the backend's own, as its schema in suites/backend_config.py has them; `quantization` is empty where
    nothing is quantized. `tokens`: of a batch without its padding, by shape, where there is some.
    `process`: number of the measuring process, from 0.
    """

    precision: str
    device: Device
    shapes: tuple[Shape, ...]
    cuda_graph: bool
    cache: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    quantization: Mapping[str, Any] = field(default_factory=dict)
    tokens: Mapping[Shape, int] = field(default_factory=dict)
    process: int = 0


class Session(abc.ABC):
    """A model ready to run at one shape after another.

    `load` makes ready for a shape and copies in (`set_shape` and `copy_in`, where a caller wants them apart); `step`
    enqueues one forward pass over what was loaded last; `wait` returns when all enqueued work is done; `fetch` copies
    the output out. `capture` turns the coming steps into replays of one CUDA graph, until the next change of shape.
    """

    stream: Stream | None = None
    """None on a CPU, where `step` returns only when the work is done."""

    replays: bool = False  # whether the next step is a launch of a graph
    _remembers = False

    @property
    def remembers(self) -> bool:
        """Whether graphs are kept by the sizes of the inputs that they were captured at, and taken up when these
        return. Set to False, the coming steps are plain until the next capture."""
        return self._remembers

    @remembers.setter
    def remembers(self, keep: bool) -> None:
        self._remembers = keep
        if not keep:
            self._step_plainly()

    def _step_plainly(self) -> None:  # noqa: B027  nothing to do where there are no graphs
        """Put away the graph that the next step would launch."""

    def load(self, feeds: Feeds) -> None:
        """Take over `feeds`."""
        self.set_shape(feeds)
        self.copy_in(feeds)

    @abc.abstractmethod
    def set_shape(self, feeds: Feeds) -> None:
        """Make ready for arrays of these sizes; does nothing where they are the last ones'."""

    def changing(self, feeds: Feeds) -> Iterator[str]:
        """`set_shape` part by part, each yielded by name when it is done."""
        self.set_shape(feeds)
        yield "set shape"

    @abc.abstractmethod
    def copy_in(self, feeds: Feeds) -> None:
        """Enqueue the copy of `feeds`, for which `set_shape` was called last."""

    @abc.abstractmethod
    def step(self) -> None: ...

    @abc.abstractmethod
    def wait(self) -> None: ...

    @abc.abstractmethod
    def fetch(self) -> Array:
        """Last hidden state [batch, sequence, hidden], in the type the model computed it in (bfloat16 as float32)."""

    def capture(self) -> None:
        """Record one step as a CUDA graph. Call after a plain step at this shape.

        Raises:
            Unsupported: no graph can be captured here.
        """
        raise Unsupported("CUDA graphs need a GPU and a backend that can capture them")

    def close(self) -> None:  # noqa: B027  most sessions are freed with their process
        """Free what the session holds; raises nothing."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class Backend(abc.ABC):
    """One way to run a model."""

    distributions: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    """What the library is installed as, the first that is there names its release, and what else goes on record."""

    marks: bool = False  # whether it gives what Source.marked asks for

    @abc.abstractmethod
    def check(self, spec: BuildSpec) -> None:
        """Say, before work starts, what cannot be done. Runs in every probe, so it imports nothing that is slow.

        Raises:
            Unsupported: the precision or an option has no implementation here.
            Unavailable: something the backend needs is not installed.
        """

    def form(self, spec: BuildSpec) -> SourceForm:
        """What to export for `spec`; asked only of a backend that builds from ONNX, after `check`."""
        return SourceForm()

    @abc.abstractmethod
    def build(self, spec: BuildSpec, source: Source) -> Artifact: ...

    @abc.abstractmethod
    def open(self, spec: BuildSpec, artifact: Artifact) -> Session: ...

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Iterator[tuple[str, Session | None]]:
        """`open` step by step, each yielded by name when it is done; the session comes with the last."""
        yield "open", self.open(spec, artifact)


BACKENDS = {
    "null": "backends.null:Null",
    "torch_eager": "backends.pytorch:TorchEager",
    "torch_compile": "backends.pytorch:TorchCompile",
    "torch_packed": "backends.pytorch_packed:TorchPacked",
    "ort": "backends.ort:OnnxRuntime",
    "trt": "backends.tensorrt_.native:TensorRT",
    "trt_plugin": "backends.tensorrt_.plugin:TensorRTPlugin",
}


def load_backend(name: str) -> Backend:
    """The backend called `name`; imports its module, which imports its vendor only when it works."""
    module, _, attribute = BACKENDS[name].partition(":")
    factory: Callable[[], Backend] = getattr(importlib.import_module(module), attribute)
    return factory()


def versions_of(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed version by distribution name, without importing any of them; missing ones are left out."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
