"""Padding of the vocabulary and of the feed-forward network keeps the outputs, and other padding is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from backends.base import Unsupported
from backends.cache import ArtifactCache
from backends.model.checkpoint import find_checkpoint, load_encoder, run_encoder
from backends.model.checkpoint_files import read_config
from backends.model.families import FAMILIES, input_names_of, size_of
from backends.model.identity import identity_of
from backends.model.padded_weights import padded_checkpoint
from backends.model.reference import ModelReference

Tiny = Callable[[str], tuple[Path, str]]

FUSED = "modernbert"
"""A family that keeps two products of its feed-forward network in one weight."""


def outputs(folder: Path, ids: np.ndarray) -> torch.Tensor:
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    with torch.inference_mode():
        return run_encoder(load_encoder(folder), {name: arrays[name] for name in input_names_of(read_config(folder))})


@pytest.mark.parametrize("name", ["vocab_size", "intermediate_size"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_zeros_keep_the_outputs_of_each_family(family: str, name: str, tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, identity = tiny(family)
    size = size_of(read_config(folder), name)
    if (family, name) == (FUSED, "intermediate_size"):
        with pytest.raises(Unsupported, match=r"modernbert.*cannot be padded to intermediate_size 136: its outputs"):
            padded_checkpoint(folder, {name: size + 8}, shared_cache)
        return
    padded = padded_checkpoint(folder, {name: size + 8}, shared_cache)
    assert size_of(read_config(padded), name) == size + 8
    assert identity_of(padded) != identity
    ids = np.random.default_rng(3).integers(0, 500, (3, 12), dtype=np.int32)
    torch.testing.assert_close(outputs(padded, ids), outputs(folder, ids), rtol=0, atol=1e-5)


def test_a_reference_with_padded_sizes_gives_the_padded_checkpoint(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, identity = tiny("bert")
    model = ModelReference("trained", path=str(folder), padded={"intermediate_size": 136})
    found = find_checkpoint(model, shared_cache)
    assert size_of(read_config(found.folder), "intermediate_size") == 136
    assert found.identity != identity
    assert found.folder == padded_checkpoint(folder, {"intermediate_size": 136}, shared_cache)


def test_the_files_of_the_tokenizer_and_of_later_modules_are_kept(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    for file in tiny("bert")[0].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "vocab.txt").write_text("[PAD]\n", encoding="utf-8")
    (folder / "modules.json").write_text("[]", encoding="utf-8")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 64}), encoding="utf-8")
    padded = padded_checkpoint(folder, {"vocab_size": 30528}, ArtifactCache(tmp_path / "cache"))
    for name in ("vocab.txt", "modules.json", "1_Pooling/config.json"):
        assert (padded / name).read_bytes() == (folder / name).read_bytes()
    assert read_config(padded)["vocab_size"] == 30528


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"hidden_size": 96}, "hidden_size cannot be padded without a change of outputs; only vocab_size and"),
        ({"intermediate_size": 120}, "intermediate_size=120 is below that of the checkpoint, 128"),
    ],
)
def test_sizes_that_cannot_be_padded_are_refused(
    sizes: dict[str, int], says: str, tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    with pytest.raises(Unsupported, match=says):
        padded_checkpoint(tiny("bert")[0], sizes, shared_cache)
