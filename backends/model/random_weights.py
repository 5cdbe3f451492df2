"""Checkpoints with seeded random weights, to measure latency and drift without trained weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Unavailable, versions_of
from backends.cache import ArtifactCache
from backends.json_codec import from_json
from backends.model.checkpoint_files import tokenizer_files
from backends.model.identity import tokenizer_identity
from backends.model.reference import ModelReference

if TYPE_CHECKING:
    from transformers import AutoModel

HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
"""Heads that random weights can have, by the end of the class in `architectures`."""


def random_checkpoint(model: ModelReference, cache: ArtifactCache) -> Path:
    """Return the folder of a random checkpoint. It is stored once, so that every interpreter runs the same numbers."""
    tokenizer = Path(model.tokenizer) if model.tokenizer else None

    def build(path: Path) -> None:
        import torch

        from backends.model.architecture import configuration_of

        torch.manual_seed(model.seed)
        configuration = configuration_of(model.architecture)
        network = _class_of(model.architecture).from_config(configuration)
        for name, parameter in network.named_parameters():
            # transformers initializes biases to 0 and norms to 1. A path that drops them would then go undetected.
            if name.endswith("bias") or ("norm" in name.lower() and name.endswith("weight")):
                parameter.data.add_(torch.randn_like(parameter) * 0.02)
        network.save_pretrained(path.parent, max_shard_size="1000GB")
        for file in tokenizer_files(tokenizer) if tokenizer else ():
            shutil.copy(file, path.parent)

    key: dict[str, object] = {"architecture": dict(model.architecture), "seed": model.seed}
    if tokenizer:
        key["tokenizer"] = tokenizer_identity(tokenizer)
    artifact = cache.get("random", key, "model.safetensors", build, versions_of(("torch", "transformers")))
    return artifact.path.parent


def _class_of(architecture: Mapping[str, object]) -> type[AutoModel]:
    """Return the class of transformers for the head that `architectures` names; AutoModel, which has none, otherwise.

    Raises:
        Unavailable: the head is not supported.
    """
    name = str(next(iter(from_json(list[str], architecture.get("architectures", []), "architectures")), ""))
    if name.partition("For")[1] and not name.endswith(HEADS):
        raise Unavailable(
            f"model.architecture.architectures has {name[:60]}; random weights can have the heads {', '.join(HEADS)}"
        )
    return head_class(architecture)


def head_class(config: Mapping[str, object]) -> type[AutoModel]:
    """Return the class of transformers for the head in HEADS that `architectures` names; AutoModel without one."""
    import transformers

    name = str(next(iter(from_json(list[str], config.get("architectures") or [], "architectures")), ""))
    head = next((head for head in HEADS if name.endswith(head)), "")
    chosen: type[AutoModel] = getattr(transformers, f"AutoModel{head}")
    return chosen
