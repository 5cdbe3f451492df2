"""Checkpoints with seeded random weights, to measure latency and drift without trained weights."""

from __future__ import annotations

import shutil
from pathlib import Path

from backends.base import versions_of
from backends.cache import ArtifactCache
from backends.model.checkpoint_files import tokenizer_files
from backends.model.identity import tokenizer_identity
from backends.model.reference import ModelReference


def random_checkpoint(model: ModelReference, cache: ArtifactCache) -> Path:
    """Return the folder of a random checkpoint. It is stored once, so that every interpreter runs the same numbers."""
    tokenizer = Path(model.tokenizer) if model.tokenizer else None

    def build(path: Path) -> None:
        import torch
        from transformers import AutoModel

        from backends.model.architecture import configuration_of

        torch.manual_seed(model.seed)
        encoder = AutoModel.from_config(configuration_of(model.architecture))
        for name, parameter in encoder.named_parameters():
            # transformers initializes biases to 0 and norms to 1. A path that drops them would then go undetected.
            if name.endswith("bias") or ("norm" in name.lower() and name.endswith("weight")):
                parameter.data.add_(torch.randn_like(parameter) * 0.02)
        encoder.save_pretrained(path.parent, max_shard_size="1000GB")
        for file in tokenizer_files(tokenizer) if tokenizer else ():
            shutil.copy(file, path.parent)

    key: dict[str, object] = {"architecture": dict(model.architecture), "seed": model.seed}
    if tokenizer:
        key["tokenizer"] = tokenizer_identity(tokenizer)
    artifact = cache.get("random", key, "model.safetensors", build, versions_of(("torch", "transformers")))
    return artifact.path.parent
