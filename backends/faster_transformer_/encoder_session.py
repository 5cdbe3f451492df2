"""Session of FasterTransformer's encoder, with the embeddings before it and the head after it in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from backends.base import Array, BuildSpec, Feeds, Unsupported
from backends.faster_transformer_.operators import Encoder
from backends.inputs.packing import check_batch, segments, token_lengths
from backends.model.output_head import OutputHead
from backends.torch_.torch_session import TorchSteps


@dataclass(frozen=True)
class EncoderModel:
    """An encoder of FasterTransformer with its other layers.

    Attributes:
        embeddings: weights of the embeddings by name, see backends/model/weights.py.
        epsilon: epsilon of the norm of the embeddings.
        encoder: the layers.
        head: layers after the encoder; None for hidden states.
    """

    embeddings: Mapping[str, torch.Tensor]
    epsilon: float
    encoder: Encoder
    head: OutputHead | None

    def run(self, inputs: Mapping[str, torch.Tensor], padded: bool) -> torch.Tensor:
        """Return the output of a batch. Hidden states of padding are 0.

        Args:
            inputs: ids, segments and mask [batch, sequence] and lengths [batch], int32.
            padded: whether a sequence has padding.
        """
        hidden = self.encoder(self._embed(inputs["ids"], inputs["segments"]), inputs["lengths"])
        mask = inputs["mask"] if padded else None
        if mask is not None:
            # A head may multiply padding by 0, but undefined values may be NaN.
            hidden = hidden.masked_fill((mask == 0)[..., None], 0)
        return hidden if self.head is None else self.head(hidden, mask)

    def _embed(self, ids: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        weights = self.embeddings
        x = weights["word"][ids] + weights["type"][types] + weights["position"][: ids.shape[1]]
        gamma, beta = weights["embeddings_gamma"], weights["embeddings_beta"]
        x = functional.layer_norm(x, gamma.shape, gamma, beta, self.epsilon)
        if "projection_weight" in weights:
            x = functional.linear(x, weights["projection_weight"], weights["projection_bias"])
        return x.contiguous()


class EncoderSession(TorchSteps):
    """Session of an EncoderModel."""

    def __init__(self, model: EncoderModel, spec: BuildSpec) -> None:
        super().__init__(spec.device.kind, spec.device.index)
        self._model: EncoderModel | None = model
        self._padded = False

    def close(self) -> None:
        self._model = None
        super().close()

    def changing(self, feeds: Feeds) -> Iterator[str]:
        check_batch(feeds)
        self._padded = not feeds["attention_mask"].all()
        self._use(self._arrays(feeds), self._padded)
        yield "set shape"

    def _arrays(self, feeds: Feeds) -> Mapping[str, Array]:
        mask = feeds["attention_mask"]
        lengths = token_lengths(mask).astype(np.int32)
        return {"ids": feeds["input_ids"], "segments": segments(feeds), "mask": mask, "lengths": lengths}

    def capture(self) -> None:
        """Raise Unsupported. A wait for the GPU ends each pass of the library, and another one gets the tokens."""
        raise Unsupported("a CUDA graph cannot record FasterTransformer, which waits for the GPU in each pass")

    def _forward(self) -> torch.Tensor:
        assert self._model is not None
        return self._model.run(self._buffers.inputs, self._padded)
