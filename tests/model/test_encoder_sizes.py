"""The counted operations of a forward pass are those that PyTorch counts, and wrong configurations have no count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import tiny_architecture
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from backends.cache import ArtifactCache
from backends.model.checkpoint import find_checkpoint, load_encoder
from backends.model.checkpoint_files import read_config
from backends.model.encoder_sizes import EncoderSizes, encoder_sizes
from backends.model.families import FAMILIES
from backends.model.reference import ModelReference

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


DEBERTAS: tuple[dict[str, object], ...] = (
    {},
    {"share_att_key": False},
    {"share_att_key": False, "pos_att_type": ["c2p"]},
    {"pos_att_type": "p2c|c2p", "position_buckets": -1, "max_relative_positions": 24},
    {"pos_att_type": ["p2c"], "position_buckets": 0, "max_position_embeddings": 48, "conv_kernel_size": 3},
    {"conv_kernel_size": 5, "conv_groups": 2, "embedding_size": 32},
    {"relative_attention": False, "pos_att_type": None, "position_biased_input": True},
)
"""Settings that decide which products DeBERTa has."""


@pytest.mark.parametrize("changes", DEBERTAS, ids=str)
def test_the_count_of_deberta_is_that_of_pytorch_for_each_more_sequence(
    changes: dict[str, object], shared_cache: ArtifactCache
) -> None:
    """PyTorch also projects the embeddings of distances, once for all sequences of a batch."""
    architecture = {**tiny_architecture("deberta-v2"), **changes}
    folder = find_checkpoint(ModelReference("random", architecture=architecture), shared_cache).folder
    sizes = encoder_sizes(read_config(folder))
    assert sizes is not None
    assert sizes == encoder_sizes(architecture)
    encoder, counts = load_encoder(folder).eval(), {}
    for batch in (1, 3):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            encoder(input_ids=torch.full((batch, SEQUENCE), 5), attention_mask=None)
        counts[batch] = counter.get_total_flops()
    assert counts[3] - counts[1] == sizes.operations(2 * SEQUENCE, SEQUENCE)
    projections = 2 if architecture["share_att_key"] else sizes.distance_products
    of_distances = 2 * sizes.layers * projections * sizes.hidden * sizes.attention * sizes.distances
    assert counts[1] == sizes.operations(SEQUENCE, SEQUENCE) + of_distances
