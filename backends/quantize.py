"""FP32 ONNX to explicit Q/DQ: static INT8 of the weight products, by onnxruntime.quantization.

The result is an ordinary opset 17 file with QuantizeLinear and DequantizeLinear before both inputs of each chosen
MatMul. Attention's own products, of two activations, are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from backends.base import Array, Artifact, versions_of
from backends.cache import ArtifactCache

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}

PRODUCTS = {
    "query": r"/(query|q_lin)/",
    "key": r"/(key|k_lin)/",
    "value": r"/(value|v_lin)/",
    "attention_output": r"/attention/(output/dense|out_lin)/",
    "ffn_up": r"/(intermediate/dense|ffn/lin1)/",
    "ffn_down": r"(?<!/attention)/(output/dense|ffn/lin2)/",
}
"""The six weight products of an encoder layer, by the node names that transformers' modules give them."""


def quantize_onnx(
    source: Artifact,
    options: Mapping[str, Any],
    calibration: Sequence[Mapping[str, Array]],
    key: Mapping[str, Any],
    cache: ArtifactCache,
) -> Artifact:
    """The Q/DQ form of `source`.

    Args:
        options: method (minmax, entropy or percentile), percentile, activation (int8 or uint8), per_channel,
            reduce_range (7-bit weights, for CPUs whose 8-bit products saturate) and products, names from
            `PRODUCTS`; the other products stay FP32.
        calibration: feeds run through the FP32 model to find activation ranges.
        key: what the calibration was made from.

    Raises:
        ValueError: the graph has none of the chosen products.
    """

    def build(path: Path) -> Mapping[str, Any]:
        chosen, others = _split_products(source.path, options["products"])
        if not chosen:
            raise ValueError(f"none of the products {', '.join(options['products'])} is in {source.path.name}")
        signed = options["activation"] == "int8"
        quantize_static(
            str(source.path),
            str(path),
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=chosen,
            per_channel=options["per_channel"],
            reduce_range=options["reduce_range"],
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[options["method"]],
            extra_options={
                "ActivationSymmetric": signed,
                "WeightSymmetric": True,
                # A product's output stays FP32: rounding it again before the bias is what costs accuracy. On
                # minilm the mean cosine to FP32 goes from 0.94 to 0.99, and the CPU provider runs faster.
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
                "CalibPercentile": options["percentile"],
            },
        )
        return {"quantized_products": len(chosen), "fp32_products": len(others)}

    versions = versions_of(("onnxruntime-gpu", "onnxruntime", "onnx"))
    everything = {"source": source.sha256, "options": dict(options), **key}
    return cache.get("qdq", everything, "model.onnx", build, versions)


def _split_products(path: Path, products: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the MatMul nodes with constant weights: those of the chosen products, and the others."""
    graph = onnx.load(str(path)).graph
    constants = {initializer.name for initializer in graph.initializer}
    names = [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants]
    chosen = [name for name in names if any(re.search(PRODUCTS[product], name) for product in products)]
    return chosen, [name for name in names if name not in chosen]


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, batches: Sequence[Mapping[str, Array]]) -> None:
        self._batches: Iterator[Mapping[str, Array]] = iter(batches)

    def get_next(self) -> Mapping[str, Array] | None:
        return next(self._batches, None)
