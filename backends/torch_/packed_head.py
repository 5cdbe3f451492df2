"""The layers after the encoder on packed tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from backends.model.output_head import OutputHead, pooling_weights

if TYPE_CHECKING:
    from collections.abc import Mapping


def packed_output(head: OutputHead, hidden: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the output of packed tokens: [batch, ...], or [tokens, ...] of a head that reads each token.

    Args:
        hidden: last hidden states [tokens, hidden].
        inputs: positions [tokens] and starts [batch + 1], int32; see Packing in backends/inputs/packing.py.
    """
    values = hidden
    if head.pooling:
        values = torch.cat([_pool(mode, hidden, inputs) for mode in head.pooling], -1)
    for layer in head.layers:
        values = layer(values)
    return values


def _pool(mode: str, hidden: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return one vector for each text, FP32 [batch, hidden]."""
    starts = inputs["starts"].long()
    if mode == "cls":
        return hidden[starts[:-1]].float()
    if mode == "lasttoken":
        return hidden[starts[1:] - 1].float()
    if mode == "max":
        return torch.segment_reduce(hidden.float(), "max", offsets=starts, axis=0)
    token = torch.arange(len(hidden), device=hidden.device)
    # Tokens that belong to no sequence may follow the others. Their values are undefined.
    hidden = hidden.masked_fill((token >= starts[-1])[:, None], 0)
    member = ((token >= starts[:-1, None]) & (token < starts[1:, None])).float()
    weights = pooling_weights(mode, inputs["positions"], member)
    return (weights.to(hidden.dtype) @ hidden).float()
