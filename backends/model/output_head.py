"""The layers after the encoder as a module of PyTorch. The ONNX export contains the same module."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from backends.model.heads import LINEAR, NORM, NORMALIZE, Head, Layer


class OutputHead(torch.nn.Module):
    """Layers of a head that read each token, pooling, then its other layers.

    Its weights have the type of the model. Poolings and norms to length 1 are computed in FP32.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.pooling, self.token_layers = head.pooling, head.token_layers
        self.layers = torch.nn.ModuleList(HeadLayer(layer, head.epsilon) for layer in head.layers)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the output of a model.

        Args:
            hidden: last hidden states [batch, sequence, hidden].
            mask: [batch, sequence], 1 or true at tokens; None without padding.
        """
        values = hidden
        for layer in self.layers[: self.token_layers]:
            values = layer(values)
        if self.pooling:
            values = torch.cat([pool(mode, values, mask) for mode in self.pooling], -1)
        for layer in self.layers[self.token_layers :]:
            values = layer(values)
        return values


class HeadLayer(torch.nn.Module):
    """One layer of a head."""

    def __init__(self, layer: Layer, epsilon: float) -> None:
        super().__init__()
        self.kind, self.epsilon = layer.kind, epsilon
        self.weight = _parameter(layer.weight)
        self.bias = _parameter(layer.bias)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Apply the layer to [..., features]."""
        if self.weight is not None:
            values = values.to(self.weight.dtype)
        if self.kind == LINEAR:
            assert self.weight is not None
            return functional.linear(values, self.weight, self.bias)
        if self.kind == NORM:
            assert self.weight is not None
            return functional.layer_norm(values, self.weight.shape, self.weight, self.bias, self.epsilon)
        if self.kind == NORMALIZE:
            values = values.float()
            return values / (values * values).sum(-1, keepdim=True).sqrt().clamp_min(1e-6)
        return {"tanh": torch.tanh, "relu": torch.relu, "gelu": functional.gelu}[self.kind](values)


def _parameter(array: object) -> torch.nn.Parameter | None:
    return None if array is None else torch.nn.Parameter(torch.as_tensor(array), requires_grad=False)


def pool(mode: str, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return one vector for each text, FP32 [batch, hidden]. The arguments are those of OutputHead."""
    if mode == "cls":
        return hidden[:, 0].float()
    if mask is None:
        mask = hidden.new_ones(hidden.shape[:2])
    if mode == "max":
        outside = mask[..., None] == 0
        return hidden.float().masked_fill(outside, -math.inf).amax(1)
    tokens = mask.to(torch.float32)
    weights = pooling_weights(mode, torch.arange(mask.shape[1], device=mask.device), tokens)
    return (weights[:, None].to(hidden.dtype) @ hidden)[:, 0].float()


def pooling_weights(mode: str, positions: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the weight of each token in a pooling that is a weighted sum, FP32 like `tokens`.

    Args:
        mode: one of POOLINGS (backends/model_output.py) except max.
        positions: position of each token in its text, [sequence] or as `tokens`.
        tokens: FP32 [batch, ...], 1 at the tokens of a text and 0 elsewhere.
    """
    count = tokens.sum(1, keepdim=True)
    if mode == "mean":
        return tokens / count
    if mode == "mean_sqrt_len_tokens":
        return tokens / count.sqrt()
    if mode == "lasttoken":
        return (positions == count - 1).to(tokens.dtype) * tokens
    if mode == "cls":
        return (positions == 0).to(tokens.dtype) * tokens
    assert mode == "weightedmean"
    weighted = tokens * (positions + 1).to(tokens.dtype)
    return weighted / weighted.sum(1, keepdim=True)


class ModelWithOutput(torch.nn.Module):
    """An encoder and the layers after it. It takes the inputs of the encoder and returns the output.

    The head gets the mask of tokens from the attention mask [batch, 1, 1, sequence] of the encoder.
    """

    def __init__(self, encoder: torch.nn.Module, head: Head | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = None if head is None else OutputHead(head)

    def forward(self, attention_mask: torch.Tensor | None = None, **inputs: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.encoder(**inputs, attention_mask=attention_mask).last_hidden_state
        if self.head is None:
            return hidden
        output: torch.Tensor = self.head(hidden, None if attention_mask is None else attention_mask[:, 0, 0])
        return output
