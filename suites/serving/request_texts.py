"""Token ids of the requests of suite=serving, and the batches that they are put into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from backends.base import Array, Feeds, Shape
from backends.inputs.request_inputs import fitting_shape
from suites.serving.request_queue import BatchPolicy

FILLER = 2
"""Tokens of a row that fills a batch up to a built shape."""


@dataclass(frozen=True)
class RequestTexts:
    """Texts of requests.

    Attributes:
        ids: int32 [tokens], the ids of all texts one after another, special tokens included.
        starts: int64 [texts + 1], the place of the first token of each text, and the end.
        pad: id of padding.
        names: inputs of the model.
    """

    ids: Array
    starts: Array
    pad: int
    names: tuple[str, ...]

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], pad: int, names: Sequence[str]) -> RequestTexts:
        ids = np.concatenate([np.asarray(text, np.int32) for text in texts])
        starts = np.cumsum([0, *map(len, texts)])
        return cls(ids, starts.astype(np.int64), pad, tuple(names))

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of an .npz, which `read` reads."""
        return {"ids": self.ids, "starts": self.starts, "pad": np.asarray(self.pad), "names": np.asarray(self.names)}

    @classmethod
    def read(cls, arrays: Mapping[str, Array]) -> RequestTexts:
        return cls(arrays["ids"], arrays["starts"], int(arrays["pad"]), tuple(map(str, arrays["names"])))

    @cached_property
    def lengths(self) -> list[int]:
        """Number of tokens of each text."""
        lengths: list[int] = np.diff(self.starts).tolist()
        return lengths

    def fitting(self, longest: int) -> list[int]:
        """Return the numbers of the texts of at most `longest` tokens."""
        return [text for text, length in enumerate(self.lengths) if length <= longest]

    def feeds(self, texts: Sequence[int], shape: Shape) -> Feeds:
        """Return a batch, int32 [batch, sequence] by input name.

        Args:
            texts: numbers of its texts. Rows without a text have two tokens of padding.
            shape: size of the batch.
        """
        arrays = self._single(texts[0]) if shape == Shape(1, self.lengths[texts[0]]) else self._padded(texts, shape)
        if "token_type_ids" in self.names:
            arrays["token_type_ids"] = np.zeros_like(arrays["input_ids"])
        return {name: arrays[name] for name in self.names}

    @cached_property
    def _rows(self) -> list[Array]:
        """Ids of each text, int32 [1, tokens]."""
        return [self.ids[first:end][None] for first, end in pairwise(self.starts.tolist())]

    def _single(self, text: int) -> dict[str, Array]:
        """Return a batch of one text without a copy, because such batches are the most frequent ones."""
        return {"input_ids": self._rows[text], "attention_mask": self._ones[:, : self.lengths[text]]}

    @cached_property
    def _ones(self) -> Array:
        return np.ones((1, max(self.lengths)), np.int32)

    def _padded(self, texts: Sequence[int], shape: Shape) -> dict[str, Array]:
        ids = np.full((shape.batch, shape.sequence), self.pad, np.int32)
        mask = np.zeros((shape.batch, shape.sequence), np.int32)
        mask[len(texts) :, :FILLER] = 1
        for row, text in enumerate(texts):
            length = self.lengths[text]
            ids[row, :length] = self._rows[text][0]
            mask[row, :length] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def computed(self, texts: Sequence[int], shape: Shape, policy: BatchPolicy) -> int:
        """Return the number of tokens that a batch computes: all of its shape, or, if it is packed, those of its rows
        up to a multiple."""
        size = shape.batch * shape.sequence
        if not policy.packed:
            return size
        tokens = sum(self.lengths[text] for text in texts) + FILLER * (shape.batch - len(texts))
        return min(-(-tokens // policy.multiple) * policy.multiple, size)

    def shape(self, texts: Sequence[int], built: Sequence[Shape]) -> Shape:
        """Return the shape of a batch: that of its longest text, or, with `built` shapes, the smallest that fits."""
        own = Shape(len(texts), max(self.lengths[text] for text in texts))
        return built[fitting_shape(own, built)] if built else own
