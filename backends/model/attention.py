"""Scaled dot product attention of the encoder, in two variants: fused and plain.

For its own attention implementations, transformers builds a mask. Under tracing, compilation or graph capture it builds
a full mask even without padding, and attention then cannot use its fastest kernel (measured on an H200, BERT-base at
128x128 in FP16: 17.9 ms instead of 7.4 ms). For the implementations that this module registers, transformers passes
the given mask unchanged, and also None.
"""

from __future__ import annotations

import torch
from transformers import AttentionInterface

Tensor = torch.Tensor


def fused(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: object
) -> tuple[Tensor, None]:
    """Call scaled_dot_product_attention on [batch, heads, sequence, d]; return [batch, sequence, heads, d].

    `attention_mask` is None or boolean [batch, 1, 1, sequence], true at tokens.
    """
    output = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
    return output.transpose(1, 2).contiguous(), None


def plain(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **_: object
) -> tuple[Tensor, None]:
    """Compute the same with single operations and an additive mask, which ONNX optimizers recognize as attention.

    The BERT fusion of onnxruntime finds the mask only after a division by sqrt(d), not after a multiplication.
    """
    scores = torch.matmul(query, key.transpose(2, 3)) / float(query.size(-1)) ** 0.5 + attention_mask
    return torch.matmul(torch.softmax(scores, dim=-1), value).transpose(1, 2).contiguous(), None


def register() -> None:
    """Register both variants in transformers as `attn_implementation` "suites_fused" and "suites_plain"."""
    AttentionInterface.register("suites_fused", fused)
    AttentionInterface.register("suites_plain", plain)
