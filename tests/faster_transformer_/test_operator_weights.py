"""Weights in the layout of FasterTransformer's operators: its formulas with them give the outputs of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_MODELS
from fake_library import bert, perturbed_checkpoint

from backends.base import Array
from backends.cache import ArtifactCache
from backends.faster_transformer_.formulas import EPSILON, embed, encode
from backends.faster_transformer_.operator_weights import ARGUMENTS, operator_weights
from backends.model.checkpoint import input_names, load_encoder, run_encoder
from backends.model.checkpoint_files import read_config
from backends.model.families import layer_names_of
from backends.model.identity import identity_of
from backends.model.weights import encoder_weights

Checkpoint = Callable[[str], tuple[Path, str]]

LENGTHS = (12, 7, 1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Return the folder and the identity of a tiny checkpoint of a family in which no weight is 0 or 1."""
    made: dict[str, Path] = {}

    def make(family: str) -> tuple[Path, str]:
        if family not in made:
            made[family] = perturbed_checkpoint(tmp_path_factory.mktemp(family), TINY_MODELS[family])
        return made[family], identity_of(made[family])

    return make


def transformers_outputs(folder: Path, ids: Array, mask: Array, as_library: bool) -> Array:
    """Return the hidden states of transformers, with the GELU and the epsilon of the library if `as_library`."""
    encoder = load_encoder(folder)
    names = layer_names_of(read_config(folder))
    for layer in range(2 if as_library else 0):
        parent, _, name = names.module("activation", layer).rpartition(".")
        setattr(encoder.get_submodule(parent), name, torch.nn.GELU(approximate="tanh"))
        for role in ("attention_norm", "ffn_norm"):
            module = encoder.get_submodule(names.module(role, layer))
            assert isinstance(module, torch.nn.LayerNorm)
            module.eps = EPSILON
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    with torch.inference_mode():
        return np.asarray(run_encoder(encoder, {name: feeds[name] for name in input_names(folder)}).numpy())


def inputs() -> tuple[Array, Array]:
    """Return ids and mask of sequences with LENGTHS tokens."""
    mask = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.int32)
    ids = np.random.default_rng(0).integers(3, 400, mask.shape).astype(np.int32)
    return np.where(mask == 1, ids, 1).astype(np.int32), mask


@pytest.mark.parametrize("family", TINY_MODELS)
@pytest.mark.parametrize("removes_padding", [True, False])
def test_the_library_gives_the_outputs_of_transformers(
    family: str, removes_padding: bool, checkpoint: Checkpoint, shared_cache: ArtifactCache
) -> None:
    folder, identity = checkpoint(family)
    ids, mask = inputs()
    artifact = encoder_weights(folder, identity, shared_cache)
    arrays = dict(np.load(artifact.path))
    epsilon = float(str(artifact.notes["epsilon"]))
    tensors = [torch.from_numpy(operator_weights(arrays)[name]) for name in ARGUMENTS]
    states = np.stack([embed(arrays, row, np.zeros_like(row), epsilon) for row in ids])
    encoder = bert(*tensors, 2, 32, 128, removes_padding, 2, False, 1.0, 1, 1)
    outputs = encoder.forward(torch.from_numpy(states), torch.tensor(LENGTHS, dtype=torch.int32)).numpy()
    expected = transformers_outputs(folder, ids, mask, as_library=True)
    np.testing.assert_allclose(outputs[mask == 1], expected[mask == 1], atol=1e-5)


@pytest.mark.parametrize("family", TINY_MODELS)
def test_the_formulas_give_the_outputs_of_transformers(
    family: str, checkpoint: Checkpoint, shared_cache: ArtifactCache
) -> None:
    folder, identity = checkpoint(family)
    ids, mask = inputs()
    artifact = encoder_weights(folder, identity, shared_cache)
    arrays = dict(np.load(artifact.path))
    weights, epsilon = operator_weights(arrays), float(str(artifact.notes["epsilon"]))
    expected = transformers_outputs(folder, ids, mask, as_library=True)
    for row, length in enumerate(LENGTHS):
        states = embed(arrays, ids[row, :length], np.zeros(length, np.int32), epsilon)
        outputs = encode(weights, 2, states, lambda layer, name, value: None)
        np.testing.assert_allclose(outputs, expected[row, :length], atol=1e-5)


def test_the_library_differs_from_bert_by_its_gelu_and_its_epsilon(checkpoint: Checkpoint) -> None:
    """The outputs of the backend can be no closer to the reference than this."""
    folder, _ = checkpoint("bert")
    ids, mask = inputs()
    library, model = (transformers_outputs(folder, ids, mask, as_library) for as_library in (True, False))
    difference = np.abs(library - model)[mask == 1].max()
    assert 1e-5 < difference < 2e-3


def test_weights_have_the_layout_of_the_library(checkpoint: Checkpoint, shared_cache: ArtifactCache) -> None:
    arrays = dict(np.load(encoder_weights(*checkpoint("bert"), shared_cache).path))
    weights = operator_weights(arrays)
    assert tuple(weights) == ARGUMENTS
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in weights.values())
    assert weights["up_kernel"].shape == (2, 64, 128)
    assert weights["down_kernel"].shape == (2, 128, 64)
    np.testing.assert_array_equal(weights["key_kernel"][1], arrays["1/qkv_weight"][1].reshape(64, 64).T)
    np.testing.assert_array_equal(weights["output_kernel"][0], arrays["0/output_weight"].reshape(64, 64).T)
