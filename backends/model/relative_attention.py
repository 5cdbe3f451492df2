"""Encoders with a relative position bias in attention, such as MPNet, with the interface of the other encoders."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class RelativeEncoder(torch.nn.Module):
    """Encoder of transformers with its own attention code, for the masks that backends/model/attention.py describes.

    That code needs an additive mask.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.config = model.config
        self.embeddings = model.embeddings
        self.encoder = model.encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> SimpleNamespace:
        """Return the last hidden state [batch, sequence, hidden].

        `attention_mask` is None, or [batch, 1, 1, sequence], either boolean (true at tokens) or additive.
        """
        hidden = self.embeddings(input_ids=input_ids)
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            lowest = torch.finfo(hidden.dtype).min
            attention_mask = torch.zeros_like(attention_mask, dtype=hidden.dtype).masked_fill(~attention_mask, lowest)
        return SimpleNamespace(last_hidden_state=self.encoder(hidden, attention_mask=attention_mask)[0])
