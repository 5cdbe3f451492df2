"""The counted operations of a forward pass are those that PyTorch counts, and wrong configurations have no count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import tiny_architecture
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from backends.model.checkpoint import load_encoder
from backends.model.checkpoint_files import read_config
from backends.model.encoder_sizes import EncoderSizes, encoder_sizes
from backends.model.families import FAMILIES

BATCH, SEQUENCE = 2, 16
COUNTED = sorted(set(FAMILIES) - {"deberta-v2"})


@pytest.mark.parametrize("family", COUNTED)
def test_the_count_is_that_of_pytorch(family: str, tiny: Callable[[str], tuple[Path, str]]) -> None:
    folder, _ = tiny(family)
    sizes = encoder_sizes(read_config(folder))
    assert sizes is not None
    encoder, ids = load_encoder(folder).eval(), torch.full((BATCH, SEQUENCE), 5)
    # FlopCounterMode does not know the fused attention of a CPU; that of SDPBackend.MATH has two products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder(input_ids=ids, attention_mask=None)
    assert counter.get_total_flops() == sizes.operations(BATCH * SEQUENCE, SEQUENCE)


def test_the_count_of_bert_base_is_that_of_the_formula() -> None:
    sizes = EncoderSizes(12, 768, 768, 768, 3072)
    assert sizes.operations(128, 128) == 12 * 128 * (2 * (4 * 768**2 + 2 * 768 * 3072) + 4 * 768 * 128)
    assert sizes.operations(100, 25.0) == 12 * 100 * (24 * 768**2 + 4 * 768 * 25)


@pytest.mark.parametrize(
    "change",
    [{"model_type": "t5"}, {"hidden_size": None}, {"num_attention_heads": 0}, {"num_hidden_layers": "two"}],
    ids=lambda change: next(iter(change)),
)
def test_a_configuration_without_sizes_has_no_count(change: dict[str, object]) -> None:
    assert encoder_sizes({**tiny_architecture("bert"), **change}) is None


def test_attention_with_more_products_has_no_count() -> None:
    assert encoder_sizes(tiny_architecture("deberta-v2")) is None
