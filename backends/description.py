"""Description of a backend: the facts that the suite needs before it imports the backend's module.

Each folder of backends has a file `description.py` with the tuple `BACKENDS` of `BackendDescription`. It needs CPython
3.10 and the standard library only, because each worker reads all descriptions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from backends.options import BackendOptions
from backends.quantization_options import Placement

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SourceKind = Enum("SourceKind", ["none", "checkpoint", "onnx"])

HIDDEN_STATES, MARKED_LAYERS = "hidden_states", "marked_layers"
"""Outputs of sessions: the last hidden state, and the points in `Source.marked`."""


@dataclass(frozen=True)
class Interpreter:
    """Python that runs a backend.

    Attributes:
        key: key of the group `interpreter` on the command line.
        help: help text of the key.
    """

    key: str
    help: str


MAIN = Interpreter(
    "main",
    "Python for exports and scores, and for all backends except TensorRT. Empty: the Python that runs the command.",
)


@dataclass(frozen=True)
class ExportDescription:
    """How a built model leaves the cache, to be served without the suite; see backends/deployment.py.

    Attributes:
        deploy: "module:name" of a function from `Deployment` to `Deployed`, which writes the files.
        runner: module with the function `open_model`. Its file is exported, so it imports only numpy and the runtime.
        engine: kind and file name in the cache of a model that runs only on the GPU and the release that built it;
            None for a model that runs on any machine.
        triton: backend and platform of Triton Inference Server that runs the file itself, such as ("tensorrt",
            "tensorrt_plan"); None if none can. The platform may be empty.
    """

    deploy: str
    runner: str
    engine: tuple[str, str] | None = None
    triton: tuple[str, str] | None = None


@dataclass(frozen=True)
class BackendDescription:
    """Facts about a backend.

    Attributes:
        name: name on the command line, in cells and in tables.
        factory: "module:name" of a callable without arguments that returns the `Backend`.
        source: input of the build: none, a checkpoint, or an exported ONNX file (or plain weights) with its checkpoint.
        devices: kinds of devices that it can use: "cpu", "cuda".
        time_limit_s: default time limit of each stage of a cell, in seconds.
        interpreter: Python that runs it.
        cuda_graph: whether CUDA graphs are measured in addition to plain steps by default.
        options: class of `BuildSpec.options`.
        groups: dataclasses of the options on the command line, by name of the group. Fields are made with `key` of
            backends/config_key.py. Two backends may share a group and its dataclass.
        placement: placement of Q/DQ for quantization.placement=auto; auto for a backend that places nothing.
        keeps_parts_by: keys that keep parts of a model in higher precision: keep_fp32, quantization.leave_out.
        packs_tokens: whether it computes tokens without padding, unless a cell has layout=fixed.
        chooses_int8: whether its builder may compute a product of an INT8 engine in another precision.
        unused_quantization: reasons why an option of quantization has no effect, by its name, or by name=value if
            only this value has none.
        unused_fp8: the same for precision=fp8 only.
        calibrates: precisions in which a backend that builds from a checkpoint uses calibration.
        outputs: outputs that its sessions can give.
        builds_engine: whether its build compiles an engine that the cache keeps.
        starts_builder: whether its builder takes seconds to start, so that `start_builder` starts it during the export.
        prefers_built_shapes: whether other shapes than the built ones are refused or compiled first.
        limits_builds: whether its builder obeys `BuildSpec.build_limit`.
        build_sweep: values that suite=building tries, by name of a build option; empty if it has no such options.
        export: how its models are exported; None if they cannot be exported.
        tools: "module:name" of a function from `RecordedCell` to `ToolCommands` (backends/vendor_tools.py): commands of
            the vendor's own tools that are equivalent to a cell. Empty if there are none.
    """

    name: str
    factory: str
    source: SourceKind
    devices: tuple[str, ...]
    time_limit_s: float
    interpreter: Interpreter = MAIN
    cuda_graph: bool = True
    options: type[BackendOptions] = BackendOptions
    groups: Mapping[str, type[DataclassInstance]] = field(default_factory=dict)
    placement: Placement = Placement.gemm
    keeps_parts_by: tuple[str, ...] = ()
    packs_tokens: bool = False
    chooses_int8: bool = False
    unused_quantization: Mapping[str, str] = field(default_factory=dict)
    unused_fp8: Mapping[str, str] = field(default_factory=dict)
    calibrates: tuple[str, ...] = ()
    outputs: tuple[str, ...] = (HIDDEN_STATES,)
    builds_engine: bool = False
    starts_builder: bool = False
    prefers_built_shapes: bool = False
    limits_builds: bool = False
    build_sweep: Mapping[str, Sequence[object]] = field(default_factory=dict)
    export: ExportDescription | None = None
    tools: str = ""
