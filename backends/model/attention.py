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

MASK_VALUE = -10000.0
"""Additive mask at padding and beyond a window. FP16 can represent it."""


def fused(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: object
) -> tuple[Tensor, None]:
    """Call scaled_dot_product_attention on [batch, heads, sequence, d]; return [batch, sequence, heads, d].

    Keys and values may have fewer heads. `attention_mask` is None or boolean, true at keys to read: [batch, 1, 1,
    sequence], or [batch, 1, sequence, sequence] in layers with a window.
    """
    grouped = {"enable_gqa": True} if _groups(module) > 1 else {}
    output = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, **grouped)
    return output.transpose(1, 2).contiguous(), None


def plain(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **_: object
) -> tuple[Tensor, None]:
    """Compute the same with single operations and an additive mask, which ONNX optimizers recognize as attention.

    The BERT fusion of onnxruntime finds the mask only after a division by sqrt(d), not after a multiplication.
    """
    if (groups := _groups(module)) > 1:
        key, value = (part.unsqueeze(2).expand(-1, -1, groups, -1, -1).flatten(1, 2) for part in (key, value))
    scores = torch.matmul(query, key.transpose(2, 3)) / float(query.size(-1)) ** 0.5 + attention_mask
    return torch.matmul(torch.softmax(scores, dim=-1), value).transpose(1, 2).contiguous(), None


def _groups(module: torch.nn.Module) -> int:
    """Return the number of query heads that share one head of keys and values."""
    return int(getattr(module, "num_key_value_groups", 1))


def register() -> None:
    """Register both variants in transformers as `attn_implementation` "suites_fused" and "suites_plain"."""
    AttentionInterface.register("suites_fused", fused)
    AttentionInterface.register("suites_plain", plain)
