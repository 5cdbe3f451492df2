"""Fusion of the operators of an exported graph, by the BERT optimizer of onnxruntime."""

from __future__ import annotations

from pathlib import Path

from backends.model.checkpoint_files import read_config
from backends.model.families import family_of
from backends.onnx_ import onnx_files


def fuse_operators(source: Path, checkpoint: Path, path: Path, half: bool, gpu: bool) -> dict[str, object]:
    """Fuse attention, GELU, LayerNorm and embeddings; return the number of fused operators of each kind.

    For families without named layers, the optimizer fuses only the patterns that it recognizes.

    Raises:
        RuntimeError: the optimizer did not fuse the attention of all layers of a family with named layers.
    """
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions
    from transformers import AutoConfig

    family = family_of(read_config(checkpoint))
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    options = FusionOptions(family.fusion)
    options.enable_embed_layer_norm = family.fused_embeddings
    model = optimizer.optimize_model(
        str(source),
        model_type=family.fusion,
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        optimization_options=options,
        opt_level=0,
        use_gpu=gpu,
    )
    fused = {name: count for name, count in model.get_fused_operator_statistics().items() if count}
    if family.named_layers and fused.get("Attention", 0) != config.num_hidden_layers:
        raise RuntimeError(
            f"onnxruntime's optimizer fused the attention of only {fused.get('Attention', 0)} of "
            f"{config.num_hidden_layers} layers (fused operators: {fused}); set ort.fusion=off"
        )
    if half:
        model.convert_float_to_float16(keep_io_types=False)
    model.save_model_to_file(str(path), use_external_data_format=onnx_files.is_large(source))
    if onnx_files.is_large(path):
        onnx_files.store_weights_digest(path)
    return {"fused": fused}
