"""Checkpoints whose vocabulary or feed-forward network is padded with zeros, with the same outputs.

Rows of the embedding for ids that no tokenizer gives do not change an output. A feature of the feed-forward network
whose weights and biases are 0 gives f(0) = 0 for GELU and ReLU, and its weights in the next product are 0 too. The
hidden size cannot be padded like this: norms average over it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Unsupported, versions_of
from backends.cache import ArtifactCache
from backends.model.checkpoint_files import SENTENCE_FILES, read_config, tokenizer_files
from backends.model.families import family_of, input_names_of, size_of, vocabulary_of
from backends.model.identity import identity_of
from backends.model.random_weights import head_class

if TYPE_CHECKING:
    import torch

EXACT = ("vocab_size", "intermediate_size")
"""Sizes in config.json, by the names of BERT, whose padding keeps all outputs."""

TOLERANCE = 1e-4
"""Largest difference of FP32 outputs. Products of other sizes may add their terms in another order."""

OTHER_FILES = (*SENTENCE_FILES, "*/model.safetensors")
"""Patterns of the modules after the encoder, which stay as they are."""


def padded_checkpoint(folder: Path, sizes: Mapping[str, int], cache: ArtifactCache) -> Path:
    """Return the folder of a checkpoint with larger sizes and the same outputs. It is stored once.

    Args:
        folder: the checkpoint.
        sizes: new value of each size to pad, by its name in EXACT.

    Raises:
        Unsupported: a size is not in EXACT or would become smaller, or the outputs would change, as for a family that
            keeps two products in one weight.
    """
    config = read_config(folder)
    for name, value in sizes.items():
        if name not in EXACT:
            raise Unsupported(f"{name} cannot be padded without a change of outputs; only {' and '.join(EXACT)} can")
        if value < size_of(config, name):
            raise Unsupported(f"{name}={value} is below that of the checkpoint, {size_of(config, name)}")

    def build(path: Path) -> dict[str, object]:
        _write(folder, _own_names(config, sizes), path.parent)
        difference = largest_difference(folder, path.parent)
        if not difference <= TOLERANCE:
            raise Unsupported(
                f"model type {config['model_type']!r} cannot be padded to {_words(sizes)}: its outputs change by "
                f"{difference:.2g}"
            )
        return {"difference": difference}

    key: dict[str, object] = {"checkpoint": identity_of(folder, cache.root), "sizes": dict(sizes)}
    artifact = cache.get("padded", key, "model.safetensors", build, versions_of(("torch", "transformers")))
    return artifact.path.parent


def _words(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sizes.items())


def _own_names(config: Mapping[str, object], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes by their names in this family."""
    settings = family_of(config).settings
    return {name if name in config else settings.get(name, name): value for name, value in sizes.items()}


def _write(folder: Path, sizes: Mapping[str, int], target: Path) -> None:
    """Write the checkpoint with each weight in the first rows and columns of a larger one of zeros."""
    import torch
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)  # of weights that the checkpoint lacks, such as a pooler
    kind = head_class(read_config(folder))
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    own = kind.from_pretrained(
        folder, config=config, local_files_only=True, trust_remote_code=False, use_safetensors=True
    ).float()
    for name, value in sizes.items():
        setattr(config, name, value)
    padded = kind.from_config(config)
    with torch.no_grad():
        weights = own.state_dict()
        for name, weight in padded.state_dict().items():
            _fill(weight, weights[name])
    padded.save_pretrained(target, max_shard_size="1000GB")
    others = [path for pattern in OTHER_FILES for path in folder.glob(pattern)]
    for file in (*tokenizer_files(folder), *others):
        copied = target / file.relative_to(folder)
        copied.parent.mkdir(exist_ok=True)
        shutil.copy(file, copied)


def _fill(weight: torch.Tensor, values: torch.Tensor) -> None:
    weight.zero_()
    weight[tuple(slice(size) for size in values.shape)] = values


def largest_difference(first: Path, second: Path) -> float:
    """Return the largest difference of the FP32 outputs of two checkpoints, for random token ids of the first one."""
    import torch

    from backends.model.checkpoint import load_encoder, run_encoder

    config = read_config(first)
    ids = np.random.default_rng(0).integers(0, vocabulary_of(config), (2, 8), dtype=np.int32)
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    feeds = {name: arrays[name] for name in input_names_of(config)}
    with torch.inference_mode():
        outputs = [run_encoder(load_encoder(folder), feeds) for folder in (first, second)]
    return float((outputs[0] - outputs[1]).abs().max())
