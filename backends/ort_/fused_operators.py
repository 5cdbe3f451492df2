"""Fusion of the operators of an exported graph, by the BERT optimizer of onnxruntime."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from backends.model.checkpoint_files import read_config
from backends.model.families import family_of, size_of
from backends.onnx_ import onnx_files
from backends.onnx_.half_weights import faster_conversion

if TYPE_CHECKING:
    import onnx
    from onnxruntime.transformers.optimizer import OnnxModel
    from onnxruntime.transformers.shape_infer_helper import SymbolicShapeInferenceHelper


def fuse_operators(source: Path, checkpoint: Path, path: Path, half: bool, gpu: bool) -> dict[str, object]:
    """Fuse attention, GELU, LayerNorm and embeddings; return the number of fused operators of each kind.

    For families without named layers, the optimizer fuses only the patterns that it recognizes.

    Raises:
        RuntimeError: the optimizer did not fuse the attention of all layers of a family with named layers.
    """
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    convert = sys.modules[optimizer.OnnxModel.__module__].convert_float_to_float16
    config = read_config(checkpoint)
    family, layers = family_of(config), size_of(config, "num_hidden_layers")
    options = FusionOptions(family.fusion)
    options.enable_embed_layer_norm = family.fused_embeddings
    with shapes_without_matrices(), faster_conversion(convert):
        model = optimizer.optimize_model(
            str(source),
            model_type=family.fusion,
            num_heads=size_of(config, "num_attention_heads"),
            hidden_size=size_of(config, "hidden_size"),
            optimization_options=options,
            opt_level=0,
            use_gpu=gpu,
        )
        fused = {name: count for name, count in model.get_fused_operator_statistics().items() if count}
        if family.named_layers and fused.get("Attention", 0) != layers:
            raise RuntimeError(
                f"onnxruntime's optimizer fused the attention of only {fused.get('Attention', 0)} of "
                f"{layers} layers (fused operators: {fused}); set ort.fusion=off"
            )
        if half:
            model.convert_float_to_float16(keep_io_types=False)
    model.save_model_to_file(str(path), use_external_data_format=onnx_files.is_large(source))
    if onnx_files.is_large(path):
        onnx_files.store_weights_digest(path)
    return {"fused": fused}


@contextmanager
def shapes_without_matrices() -> Iterator[None]:
    """Let the optimizer infer shapes on copies of its graph without the values of matrices.

    The optimizer infers shapes before each fusion that needs them, and copies the whole model several times each time.
    If shapes depend on the values of a matrix, onnxruntime reports a failure, and the whole graph is used.
    """
    from onnxruntime.transformers.optimizer import OnnxModel

    infer = OnnxModel.infer_runtime_shape

    def infer_without_matrices(
        self: OnnxModel, dynamic_axis_mapping: Mapping[str, int] = MappingProxyType({}), update: bool = False
    ) -> SymbolicShapeInferenceHelper | None:
        if not self.enable_shape_infer:
            return None
        whole, self.model = self.model, without_matrices(self.model)
        try:
            shapes = infer(self, dynamic_axis_mapping, update)
        finally:
            self.model = whole
        if shapes is None:
            self.enable_shape_infer = True  # a failure has turned it off
            shapes = infer(self, dynamic_axis_mapping, update=True)
        return shapes

    OnnxModel.infer_runtime_shape = infer_without_matrices
    try:
        yield
    finally:
        OnnxModel.infer_runtime_shape = infer


def without_matrices(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model in which weights of more than one dimension have a name, a type and a shape only."""
    import onnx

    copied = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = model.graph
    copied.graph.node.extend(graph.node)
    copied.graph.input.extend(graph.input)
    copied.graph.output.extend(graph.output)
    copied.graph.value_info.extend(graph.value_info)
    for tensor in graph.initializer:
        if len(tensor.dims) > 1:
            copied.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        else:
            copied.graph.initializer.add().CopyFrom(tensor)
    return copied
