"""Refusal of checkpoints that the project would not compute exactly."""

from __future__ import annotations

from collections.abc import Mapping

from backends.base import Unsupported
from backends.model.families import Config, family_of

PLAIN_WEIGHTS = "a network from plain weights (torch_packed, trt_plugin, faster_transformer)"

REASONS: Mapping[str, str] = {
    "absolute": "its layers share weights",
    "bias": "its attention adds a bias that depends on the distance of two tokens",
    "rotary": "its attention rotates queries and keys by their positions",
    "disentangled": "its attention has products with embeddings of the distance of two tokens",
}
"""By `attention` of a family: why the layers have no names that such a feature can use."""


def check_computable(config: Config) -> None:
    """Check that the project can compute the encoder of `config` exactly.

    Raises:
        Unsupported: the family is unknown, or it has causal attention, positions that transformers ignores, or
            quantized weights.
    """
    rotary = family_of(config).attention == "rotary"
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise Unsupported(
            "config.json has is_decoder or add_cross_attention: causal attention is not supported; "
            "set both to false if the checkpoint is an encoder"
        )
    positions = config.get("position_embedding_type") or "absolute"
    if positions != "absolute" and not rotary:
        raise Unsupported(f"{positions} positions are not supported; give a checkpoint with absolute positions")
    if config.get("quantization_config"):
        raise Unsupported("the checkpoint's weights are quantized (quantization_config); give the original weights")


def check_named_layers(
    config: Config, feature: str, instead: str = "backend=torch_eager, torch_compile, ort or trt"
) -> None:
    """Raise Unsupported if the family lacks the layer names that `feature` needs.

    Args:
        feature, instead: for the message: the feature, and the options to use instead.
    """
    family = family_of(config)
    if not family.named_layers:
        raise Unsupported(
            f"{feature} is not supported for model type {config['model_type']!r}, because "
            f"{REASONS[family.attention]}; use {instead}"
        )
