"""Values that pass between a backend and its callers: arrays, errors, devices, shapes, sources and artifacts.

`backends.base` exports all of them. This module needs only CPython 3.10 and numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt

from backends.compute_share import BuildLimit
from backends.json_codec import from_json
from backends.model_output import LAST_HIDDEN, Output
from backends.quantization_options import QuantizationOptions

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
