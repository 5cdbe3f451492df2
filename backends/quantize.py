"""FP32 ONNX to explicit Q/DQ: static INT8 or FP8 around chosen nodes, by onnxruntime.quantization.

The result is an ordinary ONNX file with QuantizeLinear and DequantizeLinear before the inputs of each chosen node:
opset 17 for INT8, 19 for FP8, where these operators learn its type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends import onnx_files
from backends.base import Array, Artifact, Unsupported, versions_of
from backends.cache import ArtifactCache
from backends.calibration import ENTROPY_BINS, alone, collect, reader
from backends.typed import matching

WEIGHT_PRODUCTS = {
    "query": r"/(query|q_lin|qkv)/MatMul$",
    "key": r"/(key|k_lin)/MatMul$",
    "value": r"/(value|v_lin)/MatMul$",
    "attention_output": r"/attention/(output/dense|out_lin)/MatMul$",
    "ffn_up": r"/(intermediate/dense|ffn/lin1)/MatMul$",
    "ffn_down": r"(?<!/attention)/(output/dense|ffn/lin2)/MatMul$",
}
"""The six weight products of an encoder layer, by the node names that transformers' modules give them."""

NODES = {
    **WEIGHT_PRODUCTS,
    "scores": r"/attention/(self/)?MatMul$",
    "context": r"/attention/(self/)?MatMul_1$",
    "attention_residual": r"/layer\.\d+/(attention/output/)?Add$",
    "ffn_residual": r"/layer\.\d+/(output/Add|Add_1)$",
}
"""All that can be quantized: also attention's two products of activations, and the additions around each block.

What is added to is shared with the products that read it and quantized with them; a residual here rounds what is added.
"""

DISTRIBUTION_BINS = 2048
"""Bins of the histograms that ranges of FP8 come from: onnxruntime's own number."""

QUANTIZED = ["MatMul", "Add"]
"""Types of operators that are quantized at all."""

PLACEMENTS = {
    "gemm": tuple(WEIGHT_PRODUCTS),
    "ffn": ("ffn_up", "ffn_down"),
    "attention": ("query", "key", "value", "scores", "context", "attention_output"),
    "all": tuple(NODES),
    "all_but_ffn_residual": tuple(name for name in NODES if name != "ffn_residual"),
}
"""`all_but_ffn_residual`: in trained models a few values of what the feed-forward block adds are a hundred times larger
than the rest (minilm's first layer: at most 194, 99.9% of them below 1.4), which one scale cannot hold."""


def quantize_onnx(
    source: Artifact,
    kind: str,
    options: Mapping[str, Any],
    calibration: Callable[[], Sequence[Mapping[str, Array]]],
    trained: Mapping[str, float],
    key: Mapping[str, Any],
    cache: ArtifactCache,
) -> Artifact:
    """The Q/DQ form of `source`.

    Args:
        kind: "int8" or "fp8" (E4M3; per tensor, its ranges by the distribution of the values).
        options: placement, a name from `PLACEMENTS`, leave_out, patterns of nodes to leave alone, and for INT8 method
            (minmax, entropy or percentile), percentile, activation (int8 or uint8), per_channel and reduce_range (7-bit
            weights, for CPUs whose 8-bit products saturate), and exact_residual, whether nodes that are not quantized
            read tensors as they were.
        calibration: gives the feeds that are run through the FP32 model to find activation ranges.
        trained: ranges that were learned, by place in the graph (backends/rounding.py); they go before those found.
        key: what the calibration was made from.

    Raises:
        ValueError: the graph has none of the chosen nodes.
    """

    def build(path: Path) -> Mapping[str, Any]:
        return _quantize(source.path, path, kind, options, calibration(), trained)

    versions = versions_of(("onnxruntime-gpu", "onnxruntime", "onnx"))
    everything = {
        "source": source.sha256,
        "kind": kind,
        "options": dict(options),
        "form": 3 if options.get("method") == "entropy" else 2,
        **({"trained": dict(trained)} if trained else {}),
        **key,
    }
    return cache.get("qdq", everything, "model.onnx", build, versions)


def _quantize(
    source: Path, path: Path, kind: str, options: Mapping[str, Any], calibration: Sequence[Mapping[str, Array]],
    trained: Mapping[str, float],
) -> Mapping[str, Any]:  # fmt: skip
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    chosen, others = _split_nodes(
        onnx_files.graph_of(source), PLACEMENTS[options["placement"]], options.get("leave_out", ())
    )
    if not chosen and options.get("leave_out"):
        onnx_files.copy(source, path)
        return {"opset": _opset(path), "quantized": 0, "weight_products_left": len(others)}
    if not chosen:
        raise ValueError(f"nothing that quantization.placement={options['placement']} names is in {source.name}")
    signed = options["activation"] == "int8"
    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    fp8, large = kind == "fp8", onnx_files.is_large(source)
    if fp8 and large:
        raise Unsupported("an ONNX file above 2 GB is not quantized to FP8 here; use precision=int8")
    with alone(source) as link:
        own = fp8 or options["method"] != "minmax" or trained
        method = "distribution" if fp8 else options["method"]
        ranges = _ranges(link, method, options, calibration, trained) if own else None
        quantize_static(
            str(link),
            str(path),
            reader(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            nodes_to_quantize=chosen,
            per_channel=options["per_channel"] and not fp8,
            reduce_range=options["reduce_range"] and not fp8,
            activation_type=QuantType.QFLOAT8E4M3FN if fp8 else QuantType.QInt8 if signed else QuantType.QUInt8,
            weight_type=QuantType.QFLOAT8E4M3FN if fp8 else QuantType.QInt8,
            calibrate_method=CalibrationMethod.Distribution if fp8 else methods[options["method"]],
            calibration_cache_path=ranges,
            use_external_data_format=large,
            extra_options={
                "ActivationSymmetric": signed or fp8,
                "WeightSymmetric": True,
                # A product's output stays FP32: rounding it again before the bias is what costs accuracy. On
                # minilm the mean cosine to FP32 goes from 0.94 to 0.99, and the CPU provider runs faster.
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Add"],
                "CalibPercentile": options["percentile"],
                # TensorRT 8.6 reads no INT8 constants: weights stay FP32 behind a Q/DQ pair of their own.
                "AddQDQPairToWeight": True,
                "QuantizeBias": False,
            },
        )
    if options.get("exact_residual"):
        _spare(path, chosen)
    if large:
        onnx_files.seal(path)
    return {"opset": _opset(path), "quantized": len(chosen), "weight_products_left": len(others)}


def _spare(path: Path, quantized: Collection[str]) -> None:
    """Have all nodes but those named read tensors as they were before they were rounded for these."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    makers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.name in quantized or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for index, name in enumerate(node.input):
            pair = makers.get(name)
            if pair is not None and pair.op_type == "DequantizeLinear" and pair.input[0] in makers:
                node.input[index] = makers[pair.input[0]].input[0]
    onnx.save(model, str(path))


def _ranges(
    source: Path,
    method: str,
    options: Mapping[str, Any],
    calibration: Sequence[Mapping[str, Array]],
    trained: Mapping[str, float],
) -> Path:
    """A file of ranges beside `source`, which quantize_static reads instead of calibrating: of histograms that are made
    batch by batch, for entropy finer ones than its own, and with the ranges that were trained."""
    import numpy as np
    from onnxruntime.quantization import calibrate

    augmented = str(source.with_name("augmented.onnx"))
    common = (str(source), QUANTIZED, augmented)
    large = onnx_files.is_large(source)
    kinds = {
        "minmax": lambda: calibrate.MinMaxCalibrater(*common, use_external_data_format=large),
        "entropy": lambda: calibrate.EntropyCalibrater(*common, large, num_bins=ENTROPY_BINS),
        # As quantize_static has it; beside trained ranges, which are symmetric themselves, the two ends are apart.
        "percentile": lambda: calibrate.PercentileCalibrater(
            *common, large, percentile=options["percentile"], symmetric=not trained
        ),
        "distribution": lambda: calibrate.DistributionCalibrater(*common, large, num_bins=DISTRIBUTION_BINS),
    }
    calibrator = kinds[method]()
    calibrator.augment_graph()
    calibrator.create_inference_session()
    collect(calibrator, calibration)
    found = calibrator.compute_data()
    for tensor, largest in placed(onnx_files.graph_of(source), trained).items():
        edge = np.array(largest, np.float32)
        found[tensor] = calibrate.TensorData(lowest=-edge, highest=edge)
    ranges = source.with_name("ranges.json")
    calibrate.save_tensors_data(found, ranges)
    return ranges


def placed(graph: Any, trained: Mapping[str, float]) -> dict[str, float]:
    """Ranges by tensor, of those by place ("<node> <input or output> <index>").

    Raises:
        ValueError: the graph lacks a place, as after a change of the exporter's names.
    """
    nodes, found = {node.name: node for node in graph.node}, {}
    for place, largest in trained.items():
        name, side, index = place.rsplit(" ", 2)
        if name not in nodes:
            raise ValueError(f"the graph has no node {name}, whose range was trained")
        found[getattr(nodes[name], side)[int(index)]] = largest
    return found


def _opset(path: Path) -> int:
    import onnx

    return int(
        next(entry.version for entry in onnx.load(str(path), load_external_data=False).opset_import if not entry.domain)
    )


def _split_nodes(graph: Any, products: Sequence[str], leave_out: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the nodes to quantize, and of the MatMul nodes with constant weights that are left."""
    chosen = [node.name for node in graph.node if any(re.search(NODES[product], node.name) for product in products)]
    left = matching([node.name for node in graph.node], leave_out)
    chosen = [name for name in chosen if name not in left]
    constants = {initializer.name for initializer in graph.initializer}
    weighted = [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants]
    return chosen, [name for name in weighted if name not in chosen]
