"""A model family that the project does not have: other names of modules and of config.json's fields, and an offset of
positions. It is registered with transformers, as a release with a new family would do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from transformers import AttentionInterface, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

Tensor = torch.Tensor


class ToyConfig(PreTrainedConfig):
    model_type = "toy"

    def __init__(self, **settings: Any) -> None:
        sizes = {"vocab_size": 50, "width": 32, "depth": 2, "heads": 2, "inner": 64, "max_position_embeddings": 22}
        for name, value in {**sizes, "act": "gelu", "pad_token_id": 1}.items():
            setattr(self, name, settings.pop(name, value))
        super().__init__(pad_token_id=self.pad_token_id, **settings)


class ToyAttention(torch.nn.Module):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.q, self.k, self.v = (torch.nn.Linear(config.width, config.width) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (part(x).unflatten(-1, (self.config.heads, -1)).transpose(1, 2)
                             for part in (self.q, self.k, self.v))  # fmt: skip
        if self.config._attn_implementation == "eager":
            scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
            scores = scores.masked_fill(mask[:, None, None] == 0, float("-inf"))  # type: ignore[index]
            attended = (scores.softmax(-1) @ value).transpose(1, 2)
        else:
            attended, _ = AttentionInterface()[self.config._attn_implementation](self, query, key, value, mask)
        context: Tensor = attended.flatten(2)
        return context


class ToyBlock(torch.nn.Module):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.attn = ToyAttention(config)
        self.norm1, self.norm2 = (torch.nn.LayerNorm(config.width, eps=1e-12) for _ in range(2))
        self.up, self.down = torch.nn.Linear(config.width, config.inner), torch.nn.Linear(config.inner, config.width)
        self.act = torch.nn.GELU()
        self.out = torch.nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.norm1(self.out(self.attn(x, mask)) + x)
        result: Tensor = self.norm2(self.down(self.act(self.up(x))) + x)
        return result


class ToyModel(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"
    _supports_sdpa = _supports_attention_backend = True

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.words = torch.nn.Embedding(config.vocab_size, config.width)
        self.places = torch.nn.Embedding(config.max_position_embeddings, config.width)
        self.first_norm = torch.nn.LayerNorm(config.width, eps=1e-12)
        self.blocks = torch.nn.ModuleList(ToyBlock(config) for _ in range(config.depth))
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
        x = self.first_norm(self.words(input_ids) + self.places.weight[2 : 2 + input_ids.shape[1]])
        for block in self.blocks:
            x = block(x, attention_mask)
        return BaseModelOutput(last_hidden_state=x)


def register() -> SimpleNamespace:
    """Register the family with transformers. Return the arguments of its LayerNames and of its Family."""
    AutoConfig.register("toy", ToyConfig, exist_ok=True)
    AutoModel.register(ToyConfig, ToyModel, exist_ok=True)
    names = {
        "layers": "blocks", "query": "attn.q", "key": "attn.k", "value": "attn.v", "attention_output": "out",
        "attention_norm": "norm1", "ffn_up": "up", "activation": "act", "ffn_down": "down", "ffn_norm": "norm2",
        "word": "words", "position": "places", "embeddings_norm": "first_norm",
    }  # fmt: skip
    settings = {"hidden_size": "width", "num_hidden_layers": "depth", "num_attention_heads": "heads",
                "intermediate_size": "inner", "hidden_act": "act"}  # fmt: skip
    return SimpleNamespace(names=names, family={"token_types": "never", "positions_from": "two", "settings": settings})
