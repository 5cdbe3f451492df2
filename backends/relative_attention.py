"""Encoders whose attention adds a bias by relative position (MPNet), called as the other encoders are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch


class RelativeEncoder(torch.nn.Module):
    """transformers' MPNet behind the mask that backends/attention.py describes.

    transformers computes this attention by itself and takes an additive mask.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config
        self.embeddings = model.embeddings
        self.encoder = model.encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> SimpleNamespace:
        """Last hidden state; `attention_mask` is None, boolean (true at tokens) or additive [batch, 1, 1, sequence]."""
        hidden = self.embeddings(input_ids=input_ids)
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            least = torch.finfo(hidden.dtype).min
            attention_mask = torch.zeros_like(attention_mask, dtype=hidden.dtype).masked_fill(~attention_mask, least)
        return SimpleNamespace(last_hidden_state=self.encoder(hidden, attention_mask=attention_mask)[0])
