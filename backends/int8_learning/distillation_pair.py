"""Teacher and student: an FP32 encoder, and a copy with INT8 fake quantization that must reproduce its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Feeds
from backends.cache import ArtifactCache
from backends.inputs.lengths import Lengths
from backends.onnx_.quantize import PLACEMENTS
from backends.quantization_options import QuantizationOptions

if TYPE_CHECKING:
    import torch

    from backends.int8_learning.fake_quantization import ActivationRounding


@dataclass(frozen=True)
class Student:
    """A checkpoint, its quantization, and the texts on which its outputs are compared with FP32.

    Attributes:
        folder: the checkpoint.
        identity: digest of the checkpoint, see backends/model/identity.py.
        quantization: this class reads `placement` (of the simulated Q/DQ), `leave_out` (patterns of nodes that are not
            quantized), `tokens` and `exact_residual`.
        texts: sentences for the input sequences.
        device: "cuda" or "cpu".
        plugins: whether the target is an engine of plugins. Plugins round every tensor that they compute in INT8.
        floating: nodes (NODES of backends/model/layer_names.py) that the backend does not quantize.
        lengths: lengths of the sequences of a range search; None for sequences of 1 to 4 sentences.
    """

    folder: Path
    identity: str
    quantization: QuantizationOptions
    texts: Sequence[str]
    seed: int
    device: str
    plugins: bool
    floating: Sequence[str]
    cache: ArtifactCache
    lengths: Lengths | None = None

    @property
    def nodes(self) -> list[str]:
        placement = PLACEMENTS["all" if self.plugins else self.quantization.placement.name]
        return [name for name in placement if name not in self.floating]

    @property
    def leave_out(self) -> list[str]:
        return list(self.quantization.leave_out)

    @property
    def tokens(self) -> str:
        """Source of the input sequences: "text", "random" or "auto"."""
        return self.quantization.tokens.name

    @property
    def exact_residual(self) -> bool:
        """Whether operations that are not quantized read tensors before rounding. Plugin norms in FP16 do."""
        return self.plugins or self.quantization.exact_residual

    @property
    def key(self) -> Mapping[str, object]:
        """Key of the artifacts in the cache."""
        return {
            "checkpoint": self.identity,
            "nodes": sorted(self.nodes),
            "plugins": self.plugins,
            "leave_out": self.leave_out,
            "texts": list(self.texts),
            "tokens": self.tokens,
            "seed": self.seed,
            **({"exact": True} if self.exact_residual else {}),
            **({"lengths": self.lengths.settings()} if self.lengths else {}),
        }

    def load(self) -> tuple[torch.nn.Module, torch.nn.Module, dict[str, ActivationRounding]]:
        """Load the teacher and the student, and return also the student's `Activation` for each place in the graph."""
        from backends.int8_learning.fake_quantization import register_attention, round_encoder
        from backends.model.checkpoint import load_encoder

        register_attention()
        teacher, student = load_encoder(self.folder).to(self.device), load_encoder(self.folder, "rounded")
        roundings = round_encoder(
            student.to(self.device), self.nodes, self.plugins, self.leave_out, self.exact_residual
        )
        for rounding in roundings.values():
            rounding.to(self.device)
        return teacher, student, roundings


def relative_error(outputs: torch.Tensor, targets: torch.Tensor, feeds: Feeds) -> torch.Tensor:
    """Return the relative squared error of hidden states [batch, sequence, hidden]: the sum of the error over all
    tokens and the error of the mean over tokens. Padding does not count."""
    import torch

    mask = torch.from_numpy(feeds["attention_mask"]).to(outputs.device)[..., None].float()
    tokens = ((outputs - targets) ** 2 * mask).sum() / (targets**2 * mask).sum()
    pooled, pooled_targets = ((x * mask).sum(1) for x in (outputs, targets))
    return tokens + ((pooled - pooled_targets) ** 2).sum() / (pooled_targets**2).sum()
