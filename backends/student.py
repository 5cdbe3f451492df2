"""An encoder that is rounded to INT8 in FP32 arithmetic, beside the one that it is to give the outputs of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import Feeds
from backends.cache import ArtifactCache
from backends.quantize import PLACEMENTS

if TYPE_CHECKING:
    import torch

    from backends.rounding import Activation


@dataclass(frozen=True)
class Student:
    """What a checkpoint is rounded by and judged on.

    Attributes:
        folder: the checkpoint.
        quantization: suites/config.py's QuantizationConfig; of it `placement` of the Q/DQ that is meant, and
            `leave_out`, patterns of nodes of the graph that are left alone.
        texts: what sequences are made of.
        device: "cuda" or "cpu".
        plugins: whether it is for an engine of plugins, which rounds all that they compute in INT8.
        floating: nodes (backends/quantize.py's NODES) that the backend does not round.
    """

    folder: Path
    identity: str
    quantization: Mapping[str, Any]
    texts: Sequence[str]
    seed: int
    device: str
    plugins: bool
    floating: Sequence[str]
    cache: ArtifactCache

    @property
    def nodes(self) -> list[str]:
        every = PLACEMENTS["all" if self.plugins else self.quantization["placement"]]
        return [name for name in every if name not in self.floating]

    @property
    def left(self) -> list[str]:
        return list(self.quantization.get("leave_out", ()))

    @property
    def tokens(self) -> str:
        """What sequences are made of: "text", "random" or "auto"."""
        return str(self.quantization.get("tokens", "auto"))

    @property
    def exact(self) -> bool:
        """Whether what is not rounded reads tensors as they were. Norms of plugins do, where they are not INT8."""
        return self.plugins or bool(self.quantization.get("exact_residual"))

    @property
    def key(self) -> Mapping[str, Any]:
        """What tells it from others in the cache."""
        return {
            "checkpoint": self.identity,
            "nodes": sorted(self.nodes),
            "plugins": self.plugins,
            "leave_out": self.left,
            "texts": list(self.texts),
            "tokens": self.tokens,
            "seed": self.seed,
            **({"exact": True} if self.exact else {}),
        }

    def load(self) -> tuple[torch.nn.Module, torch.nn.Module, dict[str, Activation]]:
        """The encoder as it is, the rounded one, and its roundings of activations by place in the exported graph."""
        from backends.checkpoint import load_encoder
        from backends.rounding import register, round_encoder

        register()
        teacher, rounded = load_encoder(self.folder).to(self.device), load_encoder(self.folder, "rounded")
        roundings = round_encoder(rounded.to(self.device), self.nodes, self.plugins, self.left, self.exact)
        for rounding in roundings.values():
            rounding.to(self.device)
        return teacher, rounded, roundings


def distance(found: torch.Tensor, wanted: torch.Tensor, feeds: Feeds) -> torch.Tensor:
    """How far hidden states [batch, sequence, hidden] are from those wanted, relative to their size: by token, and by
    the mean over tokens."""
    import torch

    kept = torch.from_numpy(feeds["attention_mask"]).to(found.device)[..., None].float()
    tokens = ((found - wanted) ** 2 * kept).sum() / (wanted**2 * kept).sum()
    pooled, goal = ((x * kept).sum(1) for x in (found, wanted))
    return tokens + ((pooled - goal) ** 2).sum() / (goal**2).sum()
