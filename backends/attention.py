"""Scaled dot product attention as the encoder calls it, in the two forms that the suite needs.

transformers builds a mask of its own for the implementations it knows, and under tracing, compilation or graph
capture it builds a full one even where nothing is padded, which costs attention its fastest kernel (measured on
an H200, BERT-base at 128 x 128 in FP16: 17.9 ms instead of 7.4). For implementations registered here it hands on
what it is given: None, or a mask that is ready.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface

Tensor = torch.Tensor


def fused(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """PyTorch's scaled_dot_product_attention over [batch, heads, sequence, d]; gives [batch, sequence, heads, d].

    `attention_mask` is None or boolean [batch, 1, 1, sequence], true where there is a token.
    """
    output = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
    return output.transpose(1, 2).contiguous(), None


def plain(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **_: Any
) -> tuple[Tensor, None]:
    """The same written out, with an additive mask: the nodes that ONNX optimizers know as attention.

    onnxruntime's BERT fusion finds the mask only behind a division by sqrt(d), not a multiplication.
    """
    scores = torch.matmul(query, key.transpose(2, 3)) / float(query.size(-1)) ** 0.5 + attention_mask
    return torch.matmul(torch.softmax(scores, dim=-1), value).transpose(1, 2).contiguous(), None


def register() -> None:
    """Make both known to transformers as `attn_implementation` "suites_fused" and "suites_plain"."""
    AttentionInterface.register("suites_fused", fused)
    AttentionInterface.register("suites_plain", plain)
