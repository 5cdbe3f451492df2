"""Random weights are those of their seed, bit for bit: records of all versions name their digest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TINY_MODELS
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

from backends.cache import ArtifactCache
from backends.model.random_weights import random_checkpoint
from backends.model.reference import ModelReference


@pytest.mark.parametrize("seed", [0, 3])
def test_random_weights_are_bit_identical_to_those_of_transformers(seed: int, tmp_path: Path) -> None:
    settings = dict(TINY_MODELS["bert"])
    folder = random_checkpoint(ModelReference("random", architecture=settings, seed=seed), ArtifactCache(tmp_path))
    torch.manual_seed(seed)
    network = AutoModel.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    for name, parameter in network.named_parameters():
        if name.endswith("bias") or ("LayerNorm" in name and name.endswith("weight")):
            parameter.data.add_(torch.randn_like(parameter) * 0.02)
    weights, expected = load_file(folder / "model.safetensors"), network.state_dict()
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, expected[name]), name
    assert any(tensor.any() for name, tensor in weights.items() if name.endswith("bias"))
