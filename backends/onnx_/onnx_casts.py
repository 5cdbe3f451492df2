"""Convert an FP32 ONNX graph to FP16 or BF16 with explicit casts, for strongly typed backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Artifact, Unsupported, versions_of
from backends.cache import ArtifactCache
from backends.onnx_ import onnx_files
from backends.onnx_.half_weights import faster_conversion

if TYPE_CHECKING:
    import onnx
    import onnx_graphsurgeon as gs

QUANTIZERS = ["QuantizeLinear", "DequantizeLinear"]


def cast_onnx(source: Artifact, types: str, keep_fp32: Sequence[str], cache: ArtifactCache) -> Artifact:
    """Convert `source` to `types`, "fp16" or "bf16". Its floating-point inputs and outputs change their type too.

    Nodes whose name matches one of the patterns `keep_fp32` stay in FP32 between casts. So do Q/DQ nodes, because their
    scales are FP32 below opset 19, and the nodes that read them. With a cast between a DequantizeLinear and its
    product, TensorRT would not recognize an INT8 product. Norms that add squares stay in FP32 too.

    Raises:
        ValueError: a pattern matches no node.
        Unsupported: the model is above 2 GB. onnxruntime's converter infers shapes on one protobuf message.
    """
    if onnx_files.is_large(source.path):
        raise Unsupported(
            f"an ONNX file above 2 GB is not converted to {types} here; use fp32, int8 or backend=torch_eager"
        )

    def build(path: Path) -> Mapping[str, object]:
        return _cast(source.path, path, types, keep_fp32)

    key = {"source": source.sha256, "types": types, "keep_fp32": list(keep_fp32), "form": 3}
    artifact = cache.get("typed", key, "model.onnx", build, versions_of(("onnxruntime-gpu", "onnxruntime", "onnx")))
    return Artifact(**{**vars(artifact), "notes": {**source.notes, **artifact.notes}})


def _cast(source: Path, path: Path, types: str, keep_fp32: Sequence[str]) -> Mapping[str, object]:
    import onnx
    import onnx_graphsurgeon as gs
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = onnx.load(str(source))
    names = [node.name for node in model.graph.node]
    kept = matching_names(names, keep_fp32)
    norms = sums_of_squares(names, ("ReduceMean", "ReduceSum"))
    blocked = [*DEFAULT_OP_BLOCK_LIST, *QUANTIZERS]
    with faster_conversion(convert_float_to_float16):
        model = convert_float_to_float16(
            model, op_block_list=blocked, node_block_list=[*kept, *norms], keep_io_types=False
        )
    graph = gs.import_onnx(model)
    _remove_casts_after_dequantize(graph)
    _remove_casts_between(graph, set(norms))
    # The converter appends its casts at the end of the list of nodes.
    model = gs.export_onnx(graph.cleanup().toposort())
    if types == "bf16":
        _half_to_bfloat16(model, {i.name: i for i in onnx.load(str(source)).graph.initializer})
    onnx_files.save(model, path)
    return {"types": types, "kept_fp32": len(kept)}


def _remove_casts_after_dequantize(graph: gs.Graph) -> None:
    """Let products and additions read dequantized tensors in FP32 without a cast, and cast their output instead."""
    import numpy as np
    import onnx_graphsurgeon as gs
    from onnx import TensorProto

    def dequantized(tensor: gs.Tensor) -> gs.Tensor | None:
        """Return the FP32 output of a DequantizeLinear whose cast gives `tensor`, or None."""
        cast = tensor.inputs[0] if tensor.inputs else None
        fp32 = cast.inputs[0] if cast is not None and cast.op == "Cast" else None
        return fp32 if fp32 is not None and fp32.inputs and fp32.inputs[0].op == "DequantizeLinear" else None

    for node in [node for node in graph.nodes if node.op in ("MatMul", "Add")]:
        sources = [dequantized(tensor) for tensor in node.inputs]
        if any(source is None for source in sources):
            continue
        (half,) = node.outputs
        fp32 = gs.Variable(f"{half.name}_fp32", np.float32)
        node.inputs, node.outputs = sources, [fp32]
        cast = gs.Node("Cast", f"{node.name}/Cast", {"to": TensorProto.FLOAT16}, inputs=[fp32], outputs=[half])
        graph.nodes.append(cast)


def _remove_casts_between(graph: gs.Graph, names: Set[str]) -> None:
    """Let nodes of these names, which compute in FP32, read each other's outputs without a cast to FP16 and back."""

    def before_cast(tensor: gs.Tensor | None) -> gs.Tensor | None:
        """Return the input of the cast that gives `tensor`, or None."""
        node = tensor.inputs[0] if tensor is not None and tensor.inputs else None
        return node.inputs[0] if node is not None and node.op == "Cast" else None

    for node in [node for node in graph.nodes if node.name in names]:
        for place, tensor in enumerate(node.inputs):
            exact = before_cast(before_cast(tensor))
            if exact is not None and exact.inputs and exact.inputs[0].name in names:
                node.inputs[place] = exact


def _half_to_bfloat16(model: onnx.ModelProto, originals: Mapping[str, onnx.TensorProto]) -> None:
    """Change every FP16 type of a converted graph to BF16. Round constants from their FP32 originals if these exist.

    onnxruntime's converter places the casts, but it only supports FP16.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def bfloat16(tensor: onnx.TensorProto) -> onnx.TensorProto:
        source = originals.get(tensor.name, tensor)
        values = numpy_helper.to_array(source).astype("float32")
        return helper.make_tensor(tensor.name, TensorProto.BFLOAT16, tensor.dims, values.ravel().tolist())

    graph = model.graph
    for tensor in [t for t in graph.initializer if t.data_type == TensorProto.FLOAT16]:
        tensor.CopyFrom(bfloat16(tensor))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
                attribute.t.CopyFrom(bfloat16(attribute.t))
            elif node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16


def matching_names(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Return the names that match at least one of the fnmatch patterns.

    Raises:
        ValueError: a pattern matches no name.
    """
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names):
            raise ValueError(
                f"{pattern} matches none of {len(names)} names, e.g. {', '.join(names[-3:])}; give a name, with * for "
                "any part of it"
            )
    return [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]


def sums_of_squares(names: Sequence[str], reductions: Sequence[str]) -> list[str]:
    """Return the names of the nodes of norms that add squares: RMSNorm of EuroBERT, and the norm to length 1.

    Such a norm is a scope, such as /encoder/norm, with a Sqrt and a reduction. FP16 overflows at 65,504, so
    the square of a value of 256 would be infinite. LayerNormalization is one node, whose kernels add in FP32.

    Args:
        names: names of all nodes or layers, SCOPE/OPERATOR or SCOPE/OPERATOR_NUMBER.
        reductions: operators that add the squares: ReduceMean in RMSNorm, ReduceSum in the norm to length 1.
    """

    def scopes(*operators: str) -> set[str]:
        return {scope for scope, _, operator in (name.rpartition("/") for name in names) if operator in operators}

    found = scopes("Sqrt") & scopes(*reductions)
    return [name for name in names if name.rpartition("/")[0] in found]
