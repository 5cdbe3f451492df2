"""Networks of releases with weak typing (8.6 and 10): flags, precisions of layers, and types of Q/DQ.

The graphs are those of tiny models. A mock of TensorRT has the names of a release and no others; its parser turns each
node of a graph into a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
from api_reader import named, names_of
from onnx import TensorProto, numpy_helper

from backends.base import BuildSpec, Device, Shape, Source, Unsupported
from backends.cache import ArtifactCache
from backends.json_codec import from_json
from backends.onnx_.onnx_source import prepare_source
from backends.options import Switch
from backends.quantization_options import Activation, Placement, QuantizationOptions
from backends.tensorrt_.build.build import _empty_target
from backends.tensorrt_.build.onnx_network import define_from_onnx
from backends.tensorrt_.onnx_backend import TensorRT
from backends.tensorrt_.runtime.capabilities import Capabilities
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions

GPU = Device("cuda", 0, "NVIDIA H100", "GPU-0", (9, 0))
QUANTIZATION = QuantizationOptions(
    placement=Placement.all_but_ffn_residual, samples=8, sequence=24, activation=Activation.int8,
    reduce_range=Switch.off,
)  # fmt: skip

TYPES = {
    TensorProto.FLOAT: "FLOAT", TensorProto.FLOAT16: "HALF", TensorProto.BFLOAT16: "BF16", TensorProto.INT8: "INT8",
    TensorProto.FLOAT8E4M3FN: "FP8", TensorProto.INT32: "INT32", TensorProto.INT64: "INT64", TensorProto.BOOL: "BOOL",
}  # fmt: skip
"""Names of the types of TensorRT by type of ONNX."""

LAYERS = {"QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE", "Constant": "CONSTANT"}
"""Types of layers by operator. All other operators become identities here."""


class Named:
    """Mock whose class in the release has the names of its attributes."""

    def __init__(self, allowed: set[str]) -> None:
        object.__setattr__(self, "allowed", {*allowed, "allowed"})

    def __setattr__(self, name: str, value: object) -> None:
        assert name in self.allowed, name
        object.__setattr__(self, name, value)

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("__") and name not in object.__getattribute__(self, "allowed"):
            raise AssertionError(f"the release has no {type(self).__name__}.{name}")
        return object.__getattribute__(self, name)


class Config(Named):
    """Mock of IBuilderConfig: its flags."""

    def __init__(self, allowed: set[str], flags: set[str]) -> None:
        super().__init__(allowed | {"chosen"})
        self.chosen = flags

    def set_flag(self, flag: IntEnum) -> None:
        self.chosen.add(flag.name)

    def clear_flag(self, flag: IntEnum) -> None:
        self.chosen.discard(flag.name)


class Tensor(Named):
    def __init__(self, allowed: set[str], dtype: IntEnum | None) -> None:
        super().__init__(allowed)
        self.dtype, self.is_shape_tensor = dtype, False


class Layer(Named):
    """Mock of ILayer: the precision and the output types that it was given."""

    def __init__(self, allowed: set[str], name: str, kind: IntEnum, outputs: list[Tensor]) -> None:
        super().__init__(allowed | {"given", "outputs"})
        self.name, self.type, self.outputs, self.num_outputs = name, kind, outputs, len(outputs)
        self.precision: IntEnum | None = None
        self.given: dict[int, str] = {}

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]

    def set_output_type(self, index: int, kind: IntEnum) -> None:
        self.given[index] = kind.name


class Network:
    """Mock of INetworkDefinition: the layers of an ONNX file."""

    def __init__(self, flags: int) -> None:
        self.flags, self.layers, self.inputs = flags, [], []  # type: ignore[var-annotated]

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_layer(self, index: int) -> Layer:
        return cast(Layer, self.layers[index])

    def get_input(self, index: int) -> Any:
        return self.inputs[index]


class Module:
    """Mock of the module of a release, with its enumerations."""

    ILogger = object

    def __init__(self, release: str) -> None:
        self.names, self.__version__, self.config_flags = names_of(release), release, {"TF32"}

    def __getattr__(self, name: str) -> Any:
        if name not in self.names:
            raise AttributeError(name)
        made = IntEnum(name, {member: number for number, member in enumerate(sorted(self.names[name]))})  # type: ignore[misc]
        setattr(self, name, made)
        return made

    def create_network(self, flags: int) -> Network:
        return Network(flags)

    def create_builder_config(self) -> Config:
        return Config(self.names["IBuilderConfig"], self.config_flags)

    def OnnxParser(self, network: Network, logger: object) -> Any:  # the name in the module
        module = self

        class Parser:
            def parse_from_file(self, path: str) -> bool:
                module.parse(network, onnx.load(path))
                return True

        return Parser()

    def parse(self, network: Network, model: onnx.ModelProto) -> None:
        graph = onnx.shape_inference.infer_shapes(model).graph
        types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
        network.inputs += [Named({"name"}) for _ in graph.input]
        for tensor, value in zip(network.inputs, graph.input, strict=True):
            tensor.name = value.name
        for node in graph.node:
            known = [TYPES.get(types.get(name, 0), "") for name in node.output]
            outputs = [Tensor(self.names["ITensor"], self._data_type(name)) for name in known]
            kind = self.LayerType[LAYERS.get(node.op_type, "IDENTITY")]
            network.layers.append(Layer(self.names["ILayer"], node.name, kind, outputs))

    def _data_type(self, name: str) -> IntEnum | None:
        """Return a type; None if it is unknown. The parser of a release without INT64 makes sizes INT32."""
        name = "INT32" if name == "INT64" and "INT64" not in self.names["DataType"] else name
        return cast(IntEnum, self.DataType[name]) if name else None


class Made:
    """A network of a release with its configuration, and the graph that it was made from."""

    def __init__(self, release: str, spec: BuildSpec, folder: tuple[Path, str], cache: ArtifactCache) -> None:
        module: Any = Module(release)
        api = TensorRTApi(module, Capabilities.where(lambda dotted: named(module.names, dotted)))
        backend = TensorRT(lambda: api)
        backend.check(spec)
        self.source = prepare_source(*folder, backend.source_form(spec), spec.quantization, ["a line"], 0, cache)
        target = _empty_target(api, module, spec, cast(Log, SimpleNamespace(logger=None)))
        _, self.notes = define_from_onnx(target, spec, self.source)
        self.layers: list[Layer] = cast(Network, target.network).layers
        self.flags, self.network_flags = cast(Config, target.config).chosen, cast(Network, target.network).flags
        self.strongly_typed = 1 << module.NetworkDefinitionCreationFlag.STRONGLY_TYPED if api.can.strong_typing else 0

    def kept(self) -> set[str]:
        """Return the names of the layers that were given a precision; all are FP32 with FP32 outputs."""
        given = [layer for layer in self.layers if layer.precision is not None or layer.given]
        for layer in given:
            assert cast(IntEnum, layer.precision).name == "FLOAT"
            assert set(layer.given.values()) == {"FLOAT"}
            assert len(layer.given) == layer.num_outputs
        return {layer.name for layer in given}


Tiny = Callable[[str], tuple[Path, str]]
Make = Callable[..., Made]


@pytest.fixture
def make(tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path) -> Make:
    def made(
        precision: str, release: str = "10.16.1", family: str = "bert",
        quantization: QuantizationOptions = QUANTIZATION, **options: Any,
    ) -> Made:  # fmt: skip
        given = from_json(TensorRTOptions, {"min": [1, 16], "opt": [4, 32], "max": [4, 32], **options})
        spec = BuildSpec(precision, GPU, (Shape(4, 32),), True, tmp_path, given, quantization)
        return Made(release, spec, tiny(family), shared_cache)

    return made


def graph_of(source: Source) -> onnx.GraphProto:
    assert source.onnx is not None
    return onnx.load(source.onnx.path).graph


def quantization_types(graph: onnx.GraphProto) -> dict[str, set[int]]:
    """Return the types of the scales and zero points of all Q/DQ nodes, and check that zero points are zero."""
    arrays: Mapping[str, onnx.TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
    arrays |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    found: dict[str, set[int]] = {"scale": set(), "zero": set()}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            found["scale"].add(arrays[node.input[1]].data_type)
            zero = arrays[node.input[2]]
            found["zero"].add(zero.data_type)
            assert not np.asarray(numpy_helper.to_array(zero), np.float32).any(), node.name
    return found


@pytest.mark.parametrize(
    ("release", "precision", "flags"),
    [
        ("8.6.0", "fp32", set()), ("8.6.0", "tf32", {"TF32"}), ("8.6.0", "fp16", {"FP16"}),
        ("8.6.0", "int8", {"FP16", "INT8"}),
        ("10.16.1", "fp32", set()), ("10.16.1", "tf32", {"TF32"}), ("10.16.1", "fp16", {"FP16"}),
        ("10.16.1", "bf16", {"BF16"}), ("10.16.1", "int8", {"FP16", "INT8"}), ("10.16.1", "fp8", {"FP16", "FP8"}),
    ],
)  # fmt: skip
def test_flags_set_the_precision_of_a_graph_in_fp32(release: str, precision: str, flags: set[str], make: Make) -> None:
    made = make(precision, release)
    assert made.flags == flags
    assert not made.network_flags & made.strongly_typed
    types = {output.dtype.name for layer in made.layers for output in layer.outputs if output.dtype is not None}
    assert not {"HALF", "BF16"} & types
    assert made.kept() == set()


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "HALF"), ("bf16", "BF16")])
def test_types_in_the_graph_replace_the_flags(precision: str, kind: str, make: Make) -> None:
    made = make(precision, types="graph")
    assert made.flags == set()
    assert made.network_flags & made.strongly_typed
    types = [output.dtype.name for layer in made.layers for output in layer.outputs if output.dtype is not None]
    assert types.count(kind) > types.count("FLOAT")
    assert made.kept() == set()


def test_8_6_takes_types_of_the_graph_without_the_flag_for_it(make: Make) -> None:
    made = make("fp16", "8.6.0", types="graph")
    assert made.strongly_typed == 0
    assert made.flags == {"FP16"}


@pytest.mark.parametrize(("precision", "zero"), [("int8", TensorProto.INT8), ("fp8", TensorProto.FLOAT8E4M3FN)])
@pytest.mark.parametrize("types", ["auto", "graph"])
def test_quantization_is_symmetric_with_the_type_of_the_precision(
    precision: str, zero: int, types: str, make: Make
) -> None:
    made = make(precision, types=types)
    graph = graph_of(made.source)
    assert quantization_types(graph) == {"scale": {TensorProto.FLOAT}, "zero": {zero}}
    quantized = [layer.name for layer in made.layers if layer.type.name == "QUANTIZE"]
    assert quantized == [node.name for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantized) > 10
    outputs = {layer.outputs[0].dtype.name for layer in made.layers if layer.type.name == "QUANTIZE"}
    assert outputs == {TYPES[zero]}


def test_without_quantized_products_the_flag_of_int8_is_cleared(make: Make) -> None:
    """TensorRT would require ranges of all tensors otherwise."""
    without = QuantizationOptions(placement=Placement.gemm, samples=8, sequence=24, activation=Activation.int8,
                                  reduce_range=Switch.off, leave_out=["*"])  # fmt: skip
    made = make("int8", quantization=without)
    assert made.flags == {"FP16"}
    assert {layer.type.name for layer in made.layers} & {"QUANTIZE", "DEQUANTIZE"} == set()


@pytest.mark.parametrize("release", ["8.6.0", "10.16.1"])
def test_layers_that_stay_in_fp32_have_a_precision_and_output_types(release: str, make: Make) -> None:
    made = make("fp16", release, keep_fp32=["*LayerNorm*"])
    assert made.flags == {"FP16", "OBEY_PRECISION_CONSTRAINTS"}
    norms = {layer.name for layer in made.layers if "LayerNorm" in layer.name and layer.type.name != "CONSTANT"}
    assert made.kept() == norms
    assert len(norms) == 5  # of the embeddings, and two of each of two layers
    assert made.notes["layers_in_fp32"] >= len(norms)


def test_layers_with_sizes_and_constants_keep_their_types(make: Make) -> None:
    made = make("fp16", keep_fp32=["*"])
    by_name = {layer.name: layer for layer in made.layers}
    kept = made.kept()
    integers = {
        layer.name
        for layer in made.layers
        if {o.dtype.name for o in layer.outputs if o.dtype is not None} & {"INT32", "INT64", "BOOL"}
    }
    constants = {layer.name for layer in made.layers if layer.type.name == "CONSTANT"}
    assert kept
    assert not kept & (integers | constants)
    assert len(integers) > 0
    assert {by_name[name].type.name for name in kept} == {"IDENTITY"}


def test_rms_norms_stay_in_fp32_because_their_sums_overflow(make: Make) -> None:
    made = make("fp16", family="eurobert")
    assert made.flags == {"FP16", "OBEY_PRECISION_CONSTRAINTS"}
    kept = made.kept()
    assert any(name.endswith("/ReduceMean") for name in kept)
    assert all("norm" in name.lower() for name in kept)


@pytest.mark.parametrize(
    ("precision", "reason"), [("bf16", "TensorRT 8.6.0 has no BF16"), ("fp8", "reads ONNX up to opset 17")]
)
def test_8_6_refuses_the_types_that_it_lacks(precision: str, reason: str, make: Make) -> None:
    with pytest.raises(Unsupported, match=reason):
        make(precision, "8.6.0")


def test_the_mock_refuses_names_that_the_release_lacks() -> None:
    module: Any = Module("8.6.0")
    with pytest.raises(AttributeError):
        _ = module.IProgressMonitor
    with pytest.raises(KeyError):
        _ = module.BuilderFlag["BF16"]
    with pytest.raises(AssertionError):
        module.create_builder_config().no_such_option = 1
