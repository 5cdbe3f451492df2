"""Model families: which encoders are computed here, and how their configurations differ.

All functions take the contents of a config.json, as `backends/checkpoint_files.py` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.base import Unsupported

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """What differs between families.

    Attributes:
        token_types: "always" if the model has token types as an input, "several" if only a checkpoint with more than
            one type has, "never" if the family has none.
        positions_from: where positions start: "zero", "padding" (pad_token_id + 1), or "two" (whatever the padding).
        pooler: whether its AutoModel takes `add_pooling_layer`.
        named_layers: whether its layers have the names that Q/DQ placement, plain weights and marked layers look for.
        vocabulary: rows of the embedding where config.json gives no vocab_size, as transformers has it.
    """

    token_types: str = "always"
    positions_from: str = "zero"
    pooler: bool = True
    named_layers: bool = True
    vocabulary: int = 30522


FAMILIES: Mapping[str, Family] = {
    "bert": Family(),
    "ernie": Family(),
    "electra": Family(pooler=False),
    "roberta": Family(token_types="several", positions_from="padding", vocabulary=50265),
    "xlm-roberta": Family(token_types="several", positions_from="padding"),
    "camembert": Family(token_types="several", positions_from="padding"),
    "distilbert": Family(token_types="never", pooler=False),
    "albert": Family(named_layers=False, vocabulary=30000),
    "mpnet": Family(token_types="never", positions_from="two", named_layers=False, vocabulary=30527),
}

DEFAULT_POSITIONS = 512
DEFAULT_TOKEN_TYPES = 2
"""The values in transformers' configurations of these families where config.json does not give one."""


def family_of(config: Config) -> Family:
    """The family of a checkpoint; raises Unsupported for one that is not computed here."""
    name = str(config.get("model_type"))
    if name not in FAMILIES:
        raise Unsupported(f"model type {name!r} is not one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def check_computable(config: Config) -> None:
    """Check that the encoder that `config` describes is computed exactly here.

    Raises:
        Unsupported: another family, causal attention, relative positions, or quantized weights.
    """
    family_of(config)
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise Unsupported(
            "config.json has is_decoder or add_cross_attention: causal attention is not computed here; "
            "set both to false if the checkpoint is an encoder"
        )
    positions = config.get("position_embedding_type") or "absolute"
    if positions != "absolute":
        raise Unsupported(f"{positions} positions are not computed here; only absolute ones are")
    if config.get("quantization_config"):
        raise Unsupported("the checkpoint's weights are quantized (quantization_config); give the original weights")


def check_named_layers(config: Config, feature: str) -> None:
    """Raises Unsupported if `feature` (a phrase for the message) looks for layer names that the family lacks."""
    if not family_of(config).named_layers:
        raise Unsupported(
            f"{feature} is not supported for model type {config['model_type']!r}; "
            "use backend=torch_eager, torch_compile or ort in a floating point precision"
        )


def position_offset(config: Config) -> int:
    """The row of the position table that the first token has.

    Raises:
        ValueError: the family counts from the padding id and config.json has none.
    """
    family = FAMILIES.get(str(config.get("model_type")), Family())
    if family.positions_from == "two":
        return 2
    if family.positions_from == "zero":
        return 0
    padding = config.get("pad_token_id", 1)
    if padding is None:
        raise ValueError(
            f"config.json has pad_token_id null; model type {config['model_type']!r} numbers its positions from it: "
            "set pad_token_id, usually to 1"
        )
    return int(padding) + 1


def positions_of(config: Config) -> int:
    """How many tokens a sequence can have; raises ValueError as `position_offset` does."""
    return int(config.get("max_position_embeddings", DEFAULT_POSITIONS)) - position_offset(config)


def token_types_of(config: Config) -> int:
    """How many token types the model has; 0 if token types are not an input."""
    family = family_of(config)
    count = int(config.get("type_vocab_size", DEFAULT_TOKEN_TYPES))
    if family.token_types == "never" or (family.token_types == "several" and count < 2):
        return 0
    return count


def input_names_of(config: Config) -> tuple[str, ...]:
    """The encoder's inputs in the order of its ONNX file."""
    return ("input_ids", "attention_mask") + (("token_type_ids",) if token_types_of(config) else ())


def vocabulary_of(config: Config) -> int:
    """How many tokens the model has an embedding for."""
    return int(config.get("vocab_size", FAMILIES.get(str(config.get("model_type")), Family()).vocabulary))


def padding_id(config: Config) -> int:
    """The id that fills rows; attention masks it, so any row of the embedding does where config.json names none."""
    padding = config.get("pad_token_id")
    return padding if isinstance(padding, int) and 0 <= padding < vocabulary_of(config) else 0
