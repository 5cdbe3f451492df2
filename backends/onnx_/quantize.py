"""Convert an FP32 ONNX graph to explicit Q/DQ: static INT8 or FP8 around selected nodes, by onnxruntime.quantization.

The result is an ordinary ONNX file with QuantizeLinear and DequantizeLinear before the inputs of each selected node.
Its opset is 17 for INT8, and 19 for FP8, because earlier versions of these operators have no FP8 type.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from backends.base import Artifact, Unsupported, versions_of
from backends.cache import ArtifactCache
from backends.model.families import node_at
from backends.model.layer_names import NODES, WEIGHT_PRODUCTS
from backends.onnx_ import onnx_files
from backends.onnx_.calibration import (
    ENTROPY_BINS,
    CalibrationInputs,
    calibration_reader,
    collect_ranges,
    limited_to,
    private_copy,
)
from backends.onnx_.onnx_casts import matching_names
from backends.onnx_.weight_products import weight_products, with_direct_weights
from backends.options import Switch
from backends.quantization_options import Activation, Method, QuantizationOptions

if TYPE_CHECKING:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType

DISTRIBUTION_BINS = 2048
"""Bins of the histograms for FP8 ranges. It is onnxruntime's default."""

QUANTIZED_OPERATORS = ["MatMul", "Gemm", "Add"]
"""Operator types that can be quantized."""

PLACEMENTS = {
    "gemm": WEIGHT_PRODUCTS,
    "ffn": ("ffn_up", "ffn_down"),
    "attention": ("query", "key", "value", "scores", "context", "attention_output"),
    "all": NODES,
    "all_but_ffn_residual": tuple(name for name in NODES if name != "ffn_residual"),
}
"""Nodes of each placement, by their role in a layer. A placement with all six weight products of a layer also has all
other weight products, which the graph's structure gives. So `gemm` needs no roles.

`all_but_ffn_residual` exists because in trained models a few outputs of the feed-forward
block are a hundred times larger than the others (minilm's first layer: at most 194, and 99.9% of them below 1.4). One
scale cannot represent both."""


def quantize_onnx(
    source: Artifact,
    kind: str,
    options: QuantizationOptions,
    calibration: CalibrationInputs,
    cache: ArtifactCache,
) -> Artifact:
    """Insert Q/DQ pairs into `source`.

    Args:
        kind: "int8", or "fp8" (E4M3, per tensor, with ranges from the distribution of the values).
        options: FP8 uses only the nodes (`placement`, `leave_out`) and `exact_residual`. `method` is not search.
        calibration: inputs to find activation ranges, or learned ranges.

    The notes of the artifact count the quantized nodes, the weight products, and those of them that are quantized.

    Raises:
        ValueError: the graph has no node of the placement.
        Unsupported: FP8 for a model above 2 GB.
    """

    def build(path: Path) -> Mapping[str, object]:
        return _quantize(source.path, path, kind, options, calibration)

    versions = versions_of(("onnxruntime-gpu", "onnxruntime", "onnx"))
    everything = {
        "source": source.sha256,
        "kind": kind,
        "options": options.for_cell(),
        "form": 4 if options.method is Method.entropy else 3,
        **({"trained": dict(calibration.trained)} if calibration.trained else {}),
        **calibration.key,
    }
    return cache.get("qdq", everything, "model.onnx", build, versions)


def _quantize(
    source: Path, path: Path, kind: str, options: QuantizationOptions, calibration: CalibrationInputs
) -> Mapping[str, object]:
    from onnxruntime.quantization import quantize_static

    graph = onnx_files.graph_of(source)
    products = weight_products(graph)
    selected = _selected_nodes(graph, products, PLACEMENTS[options.placement.name], options.leave_out)
    counts = {
        "quantized": len(selected),
        "weight_products": len(products),
        "weight_products_quantized": len(products.keys() & set(selected)),
    }
    if not selected and options.leave_out:
        onnx_files.copy(source, path)
        return {"opset": _opset(path), **counts}
    if not selected:
        raise ValueError(
            f"{source.name} has no node of quantization.placement={options.placement.name}; choose another placement"
        )
    large = onnx_files.is_large(source)
    if kind == "fp8" and large:
        raise Unsupported("an ONNX file above 2 GB is not quantized to FP8 here; use precision=int8")
    with private_copy(source) as copied:
        link = with_direct_weights(copied)
        method = "distribution" if kind == "fp8" else options.method.name
        quantize_static(
            str(link),
            str(path),
            calibration_reader(()),  # the file of ranges replaces it
            nodes_to_quantize=selected,
            calibration_cache_path=_ranges(link, method, options, calibration, selected),
            use_external_data_format=large,
            **_settings(kind, options),
        )
    if options.exact_residual:
        _bypass_qdq(path, selected)
    if large:
        onnx_files.store_weights_digest(path)
    return {"opset": _opset(path), **counts}


class Settings(TypedDict):
    """Arguments of onnxruntime's quantize_static that depend on the recipe alone."""

    quant_format: QuantFormat
    op_types_to_quantize: list[str]
    per_channel: bool
    reduce_range: bool
    activation_type: QuantType
    weight_type: QuantType
    calibrate_method: CalibrationMethod
    extra_options: dict[str, bool | float | list[str]]


def _settings(kind: str, options: QuantizationOptions) -> Settings:
    """Return the arguments of quantize_static that depend on the recipe alone."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType

    fp8, signed = kind == "fp8", options.activation is Activation.int8
    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    return {
        "quant_format": QuantFormat.QDQ,
        "op_types_to_quantize": QUANTIZED_OPERATORS,
        "per_channel": options.per_channel and not fp8,
        "reduce_range": options.reduce_range is Switch.on and not fp8,
        "activation_type": QuantType.QFLOAT8E4M3FN if fp8 else QuantType.QInt8 if signed else QuantType.QUInt8,
        "weight_type": QuantType.QFLOAT8E4M3FN if fp8 else QuantType.QInt8,
        "calibrate_method": CalibrationMethod.Distribution if fp8 else methods[options.method.name],
        "extra_options": {
            "ActivationSymmetric": signed or fp8,
            "WeightSymmetric": True,
            # The output of a product stays FP32, because rounding it before the bias costs accuracy. This raises the
            # mean cosine of minilm to FP32 from 0.94 to 0.99, and the CPU provider is faster.
            "OpTypesToExcludeOutputQuantization": QUANTIZED_OPERATORS,
            "CalibPercentile": options.percentile,
            # TensorRT 8.6 reads no INT8 constants. So weights stay FP32, each with its own Q/DQ pair.
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
        },
    }


def _bypass_qdq(path: Path, quantized: Collection[str]) -> None:
    """Connect all nodes except `quantized` to the tensors before their Q/DQ pairs."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    producers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.name in quantized or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for index, name in enumerate(node.input):
            dequantize = producers.get(name)
            if dequantize is not None and dequantize.op_type == "DequantizeLinear" and dequantize.input[0] in producers:
                node.input[index] = producers[dequantize.input[0]].input[0]
    onnx.save(model, str(path))


def _ranges(
    source: Path, method: str, options: QuantizationOptions, calibration: CalibrationInputs, selected: Collection[str]
) -> Path:
    """Write a file of ranges next to `source`. quantize_static reads it instead of calibrating.

    Only inputs of `selected` nodes are calibrated. Histograms are collected batch by batch, and those for entropy are
    finer than onnxruntime's. Trained ranges replace calibrated ones.
    """
    import numpy as np
    from onnxruntime.quantization import calibrate

    graph, trained = onnx_files.graph_of(source), calibration.trained
    read = {name for node in graph.node if node.name in selected for name in node.input}
    common = (str(source), QUANTIZED_OPERATORS, str(source.with_name("augmented.onnx")))
    large = onnx_files.is_large(source)
    calibrators = {
        "minmax": lambda: limited_to(calibrate.MinMaxCalibrater, read)(*common, use_external_data_format=large),
        "entropy": lambda: limited_to(calibrate.EntropyCalibrater, read)(*common, large, num_bins=ENTROPY_BINS),
        # quantize_static also uses symmetric=True. With trained ranges, which are already symmetric, the two ends are
        # found separately.
        "percentile": lambda: limited_to(calibrate.PercentileCalibrater, read)(
            *common, large, percentile=options.percentile, symmetric=not trained
        ),
        "distribution": lambda: limited_to(calibrate.DistributionCalibrater, read)(
            *common, large, num_bins=DISTRIBUTION_BINS
        ),
    }
    calibrator = calibrators[method]()
    calibrator.augment_graph()
    calibrator.create_inference_session()
    collect_ranges(calibrator, calibration.batches())
    data_by_tensor = calibrator.compute_data()
    for tensor, largest in tensor_ranges(graph, trained).items():
        if tensor in read:
            edge = np.array(largest, np.float32)
            data_by_tensor[tensor] = calibrate.TensorData(lowest=-edge, highest=edge)
    path = source.with_name("ranges.json")
    calibrate.save_tensors_data(data_by_tensor, path)
    return path


def tensor_ranges(graph: onnx.GraphProto, trained: Mapping[str, float]) -> dict[str, float]:
    """Convert ranges by place ("<node> <input or output> <index>") to ranges by tensor name.

    Raises:
        ValueError: the graph has no such node, for example because the exporter changed its names.
    """
    nodes, by_tensor = {node.name: node for node in graph.node}, {}
    for place, largest in trained.items():
        name, side, index = place.rsplit(" ", 2)
        if name not in nodes:
            raise ValueError(f"the graph has no node {name}, but there is a trained range for it")
        by_tensor[getattr(nodes[name], side)[int(index)]] = largest
    return by_tensor


def _opset(path: Path) -> int:
    import onnx

    return int(
        next(entry.version for entry in onnx.load(str(path), load_external_data=False).opset_import if not entry.domain)
    )


def _selected_nodes(
    graph: onnx.GraphProto, products: Collection[str], roles: Collection[str], leave_out: Sequence[str]
) -> list[str]:
    """Return the names of the nodes to quantize: nodes with one of `roles`, and weight products if all are chosen."""
    names = [node.name for node in graph.node]
    selected = {name for name in names if (place := node_at(name)) and place[1] in roles}
    if set(WEIGHT_PRODUCTS) <= set(roles):
        selected |= set(products)
    selected -= set(matching_names(names, leave_out))
    return [name for name in names if name in selected]
