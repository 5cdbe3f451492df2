"""Dynamic INT8 of an FP32 ONNX graph, by onnxruntime.quantization.

Weights are stored as INT8. Each pass computes the range of the input of each product, so there is no calibration. The
result has the operators DynamicQuantizeLinear and MatMulInteger and runs on onnxruntime's CPU provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Artifact, versions_of
from backends.cache import ArtifactCache
from backends.onnx_ import onnx_files
from backends.onnx_.calibration import private_copy
from backends.onnx_.onnx_casts import matching_names
from backends.options import Switch
from backends.quantization_options import QuantizationOptions

if TYPE_CHECKING:
    import onnx

HEAD = "/head/"
"""Beginning of the names of a head's nodes. A head stays in floating point."""


def quantize_dynamic_int8(source: Artifact, options: QuantizationOptions, cache: ArtifactCache) -> Artifact:
    """Quantize the products of `source` with constant weights, except those of a head and of `leave_out`.

    Args:
        options: only `per_channel`, `reduce_range` and `leave_out` are used.
    """

    def build(path: Path) -> Mapping[str, object]:
        return _quantize(source.path, path, options)

    key = {"source": source.sha256, "options": options.for_cell()}
    return cache.get("dynamic-int8", key, "model.onnx", build, versions_of(("onnxruntime-gpu", "onnxruntime", "onnx")))


def _quantize(source: Path, path: Path, options: QuantizationOptions) -> Mapping[str, object]:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    products = weight_products(_without_aliases(onnx_files.graph_of(source)))
    excluded = matching_names(products, options.leave_out)
    selected = [name for name in products if name not in excluded and not name.startswith(HEAD)]
    left = len(products) - len(selected)
    if not selected:  # onnxruntime reads an empty list as all nodes
        onnx_files.copy(source, path)
        return {"quantized": 0, "weight_products_left": left}
    large = onnx_files.is_large(source)
    with private_copy(source) as link:
        direct = link.with_name("direct.onnx")
        model = onnx.load(str(link), load_external_data=False)
        _without_aliases(model.graph)
        onnx.save(model, str(direct))
        quantize_dynamic(
            str(direct),
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
    return {"quantized": len(selected), "weight_products_left": left}


def _without_aliases(graph: onnx.GraphProto) -> onnx.GraphProto:
    """Connect readers of the Identity of a constant to the constant. The exporter adds one for each shared weight."""
    constants = {initializer.name for initializer in graph.initializer}
    aliases = [node for node in graph.node if node.op_type == "Identity" and node.input[0] in constants]
    names = {node.output[0]: node.input[0] for node in aliases}
    for node in aliases:
        graph.node.remove(node)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
    return graph


def weight_products(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the MatMul nodes with constant weights."""
    constants = {initializer.name for initializer in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants]
