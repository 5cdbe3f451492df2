"""Encoders whose attention uses positions, with the interface of the other encoders.

An encoder is called with the keywords `input_ids`, `token_type_ids` if the model has them, and `attention_mask`: None,
or [batch, 1, 1, sequence], either boolean (true at tokens) or additive (0 at tokens, MASK_VALUE at padding). It also
takes `position_ids` [1, sequence] if the first position of its family is not 0. It returns an object with
`last_hidden_state` [batch, sequence, hidden]. Hidden states at padding are finite and have no meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from backends.model.attention import MASK_VALUE

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Tensor = torch.Tensor


class BiasedEncoder(torch.nn.Module):
    """Encoder with a bias in attention that depends on the distance of two tokens, such as MPNet.

    The bias of all distances is a table [1, heads, positions, positions]. transformers computes it in each step, with
    logarithms that are inexact in FP16. Its attention needs an additive mask.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.config = model.config
        self.embeddings = model.embeddings
        self.encoder = model.encoder
        with torch.no_grad():
            bias = model.encoder.compute_position_bias(torch.zeros(1, model.config.max_position_embeddings, 1))
        self.bias = torch.nn.Buffer(bias, persistent=False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> SimpleNamespace:
        hidden = self.embeddings(input_ids=input_ids, position_ids=position_ids)
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            lowest = torch.finfo(hidden.dtype).min
            attention_mask = torch.zeros_like(attention_mask, dtype=hidden.dtype).masked_fill(~attention_mask, lowest)
        length = input_ids.shape[1]
        bias = self.bias[:, :, :length, :length]
        for layer in self.encoder.layer:
            hidden = layer(hidden, attention_mask, bias)[0]
        return SimpleNamespace(last_hidden_state=hidden)


class DisentangledEncoder(torch.nn.Module):
    """DeBERTa. Its distances are a table, because their logarithms would be inexact in FP16.

    transformers also masks the rows of padding, so that their softmax has no number; here, padding reads the tokens.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.config = model.config
        self.embeddings = model.embeddings
        self.encoder = model.encoder
        longest = torch.zeros(1, model.config.max_position_embeddings, 1)
        distances = model.encoder.get_rel_pos(longest)
        self.distances = None if distances is None else torch.nn.Buffer(distances, persistent=False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> SimpleNamespace:
        if attention_mask is None:
            keys = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=input_ids.device)
        else:
            keys = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
        tokens = keys[:, 0, 0].expand(input_ids.shape).int()
        embedded = self.embeddings(input_ids=input_ids, token_type_ids=token_type_ids, mask=tokens)
        length = input_ids.shape[1]
        distances = None if self.distances is None else self.distances[:, :length, :length]
        embeddings_of_distances = self.encoder.get_rel_embedding()
        hidden = embedded
        for number, layer in enumerate(self.encoder.layer):
            hidden, _ = layer(hidden, keys, relative_pos=distances, rel_embeddings=embeddings_of_distances)
            if number == 0 and self.encoder.conv is not None:
                hidden = self.encoder.conv(embedded, hidden, tokens)
        return SimpleNamespace(last_hidden_state=hidden)


class RotaryTable(torch.nn.Module):
    """Cosines and sines of all positions, computed once in FP32.

    The module of transformers computes them in each step. FP16 cannot represent the angles of a long sequence, neither
    in a converted module nor in a converted graph. With LongRoPE, batches up to the original length have other angles
    than longer ones, so there are two tables.
    """

    def __init__(self, rotary: torch.nn.Module, layer_types: tuple[str, ...], positions: int) -> None:
        super().__init__()
        self.short: dict[str, int] = {}
        for layer_type in layer_types:
            short = _original_length(rotary.config, layer_type)
            lengths = {"": positions}
            if 0 < short < positions:
                self.short[layer_type], lengths["short_"] = short, short
            for kind, length in lengths.items():
                table = rotary(torch.zeros(1), torch.arange(length)[None], *([layer_type] if layer_type else []))
                for name, values in zip(("cosines", "sines"), table, strict=True):
                    padded = torch.nn.functional.pad(values, (0, 0, 0, positions - length))
                    self.register_buffer(f"{kind}{name}_{layer_type}", padded, persistent=False)

    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str = "") -> tuple[Tensor, Tensor]:
        """Return cosines and sines [1, sequence, d] in the type of `x`."""
        cosines, sines = (self._values(name, layer_type, position_ids) for name in ("cosines", "sines"))
        return cosines.to(x.dtype), sines.to(x.dtype)

    def _values(self, name: str, layer_type: str, position_ids: Tensor) -> Tensor:
        length = position_ids.shape[1]
        values: Tensor = getattr(self, f"{name}_{layer_type}")[:, :length]
        if layer_type not in self.short:
            return values
        short: Tensor = getattr(self, f"short_{name}_{layer_type}")[:, :length]
        # A comparison of tensors, because a tracer would keep the result of a comparison of numbers.
        long = position_ids[:1, -1:, None] >= self.short[layer_type]
        return torch.where(long, values, short)


def _original_length(config: PretrainedConfig, layer_type: str) -> int:
    """Return the length up to which LongRoPE uses its short factors; 0 for other rotations."""
    parameters = config.rope_parameters
    if layer_type:
        parameters = parameters.get(layer_type, parameters)
    return parameters["original_max_position_embeddings"] if parameters.get("rope_type") == "longrope" else 0


class WindowEncoder(torch.nn.Module):
    """Encoder in which some layers read only the tokens within a window, such as ModernBERT."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.config = model.config
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> SimpleNamespace:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        distances = (positions[:, None] - positions).abs()
        near = distances <= self.config.sliding_window
        if attention_mask is None:
            window = near[None, None]
        elif attention_mask.dtype == torch.bool:
            # Padding without a token in its window reads itself: fused kernels may give NaN for a row without keys.
            window = (attention_mask & near) | (distances == 0)
        else:
            window = torch.where(near, attention_mask, MASK_VALUE)
        masks = {"full_attention": attention_mask, "sliding_attention": window}
        output: SimpleNamespace = self.model(input_ids=input_ids, attention_mask=masks)
        return output


def rotary_encoder(model: PreTrainedModel) -> torch.nn.Module:
    """Replace the rotations by a table, and add the masks of windows if the model has windows."""
    layer_types = tuple(sorted(set(getattr(model.config, "layer_types", None) or [""])))
    model.rotary_emb = RotaryTable(model.rotary_emb, layer_types, model.config.max_position_embeddings)
    return WindowEncoder(model) if "sliding_attention" in layer_types else model


ADAPTERS: Mapping[str, Callable[[PreTrainedModel], torch.nn.Module]] = {
    "absolute": lambda model: model,
    "bias": BiasedEncoder,
    "disentangled": DisentangledEncoder,
    "rotary": rotary_encoder,
}
"""By `attention` of a family (backends/model/families.py)."""

OWN_ATTENTION = ("bias", "disentangled")
"""Families for which transformers computes attention with its own code, not with backends/model/attention.py."""
