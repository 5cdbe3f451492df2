"""Dynamic INT8 of an FP32 ONNX graph, by onnxruntime.quantization.

Weights are stored as INT8. Each pass computes the range of the input of each product, so there is no calibration. The
result has the operators DynamicQuantizeLinear and MatMulInteger and runs on onnxruntime's CPU provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backends.base import Artifact, versions_of
from backends.cache import ArtifactCache
from backends.onnx_ import onnx_files
from backends.onnx_.calibration import private_copy
from backends.onnx_.onnx_casts import matching_names
from backends.onnx_.weight_products import weight_products, with_direct_weights
from backends.options import Switch
from backends.quantization_options import QuantizationOptions


def quantize_dynamic_int8(source: Artifact, options: QuantizationOptions, cache: ArtifactCache) -> Artifact:
    """Quantize the products of `source` with constant weights, except those of a head and of `leave_out`.

    Args:
        options: only `per_channel`, `reduce_range` and `leave_out` are used.
    """

    def build(path: Path) -> Mapping[str, object]:
        return _quantize(source.path, path, options)

    key = {"source": source.sha256, "options": options.for_cell(), "form": 2}
    return cache.get("dynamic-int8", key, "model.onnx", build, versions_of(("onnxruntime-gpu", "onnxruntime", "onnx")))


def _quantize(source: Path, path: Path, options: QuantizationOptions) -> Mapping[str, object]:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    products = list(weight_products(onnx_files.graph_of(source)))
    excluded = matching_names(products, options.leave_out)
    selected = [name for name in products if name not in excluded]
    counts = {
        "quantized": len(selected),
        "weight_products": len(products),
        "weight_products_quantized": len(selected),
    }
    if not selected:  # onnxruntime reads an empty list as all nodes
        onnx_files.copy(source, path)
        return counts
    large = onnx_files.is_large(source)
    with private_copy(source) as copied:
        quantize_dynamic(
            str(with_direct_weights(copied)),
            str(path),
            op_types_to_quantize=["MatMul"],
            per_channel=options.per_channel,
            reduce_range=options.reduce_range is Switch.on,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=selected,
            use_external_data_format=large,
            extra_options={"MatMulConstBOnly": True},
        )
    if onnx_files.is_large(path):
        onnx_files.store_weights_digest(path)
    return counts
