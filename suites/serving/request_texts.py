"""Token ids of the requests of suite=serving, and the batches that they are put into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from backends.base import Array, Feeds, Shape
from backends.inputs.request_inputs import fitting_shape
from backends.inputs.request_tokenizer import RequestTokenizer
from suites.serving.batch_policy import BatchPolicy

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
        strings: the texts themselves, if the server tokenizes them; str [texts].
        tokenizer: of these texts, see backends/inputs/request_tokenizer.py; uint8 [size].
    """

    ids: Array
    starts: Array
    pad: int
    names: tuple[str, ...]
    strings: Array = field(default_factory=lambda: np.zeros(0, str))
    tokenizer: Array = field(default_factory=lambda: np.zeros(0, np.uint8))

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], pad: int, names: Sequence[str]) -> RequestTexts:
        ids = np.concatenate([np.asarray(text, np.int32) for text in texts])
        starts = np.cumsum([0, *map(len, texts)])
        return cls(ids, starts.astype(np.int64), pad, tuple(names))

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of an .npz, which `read` reads."""
        of_texts = {"strings": self.strings, "tokenizer": self.tokenizer} if len(self.strings) else {}
        names, pad = np.asarray(self.names), np.asarray(self.pad)
        return {"ids": self.ids, "starts": self.starts, "pad": pad, "names": names, **of_texts}

    @classmethod
    def read(cls, arrays: Mapping[str, Array]) -> RequestTexts:
        of_texts = {name: arrays[name] for name in ("strings", "tokenizer") if name in arrays}
        return cls(arrays["ids"], arrays["starts"], int(arrays["pad"]), tuple(map(str, arrays["names"])), **of_texts)

    @cached_property
    def lengths(self) -> list[int]:
        """Number of tokens of each text."""
        lengths: list[int] = np.diff(self.starts).tolist()
        return lengths

    def fitting(self, longest: int) -> list[int]:
        """Return the numbers of the texts of at most `longest` tokens."""
        return [text for text, length in enumerate(self.lengths) if length <= longest]

    def rows(self, texts: Sequence[int]) -> list[Array]:
        """Return the ids of texts, int32 [1, tokens] each."""
        return [self._rows[text] for text in texts]

    def tokenized(self, texts: Sequence[int]) -> list[Array]:
        """Return the same as `rows`, from the tokenizer."""
        return self._tokenizer.ids([self._strings[text] for text in texts])

    @cached_property
    def _tokenizer(self) -> RequestTokenizer:
        return RequestTokenizer(self.tokenizer)

    @cached_property
    def _strings(self) -> list[str]:
        strings: list[str] = self.strings.tolist()
        return strings

    def feeds(self, rows: Sequence[Array], shape: Shape) -> Feeds:
        """Return a batch, int32 [batch, sequence] by input name.

        Args:
            rows: ids of its texts, int32 [1, tokens] each. Rows without a text have two tokens of padding.
            shape: size of the batch.
        """
        arrays = self._single(rows[0]) if shape == Shape(*rows[0].shape) else self._padded(rows, shape)
        if "token_type_ids" in self.names:
            arrays["token_type_ids"] = np.zeros_like(arrays["input_ids"])
        return {name: arrays[name] for name in self.names}

    @cached_property
    def _rows(self) -> list[Array]:
        """Ids of each text, int32 [1, tokens]."""
        return [self.ids[first:end][None] for first, end in pairwise(self.starts.tolist())]

    def _single(self, row: Array) -> dict[str, Array]:
        """Return a batch of one text without a copy, because such batches are the most frequent ones."""
        return {"input_ids": row, "attention_mask": self._ones[:, : row.shape[1]]}

    @cached_property
    def _ones(self) -> Array:
        return np.ones((1, max(self.lengths)), np.int32)

    def _padded(self, rows: Sequence[Array], shape: Shape) -> dict[str, Array]:
        ids = np.full((shape.batch, shape.sequence), self.pad, np.int32)
        mask = np.zeros((shape.batch, shape.sequence), np.int32)
        mask[len(rows) :, :FILLER] = 1
        for place, row in enumerate(rows):
            length = row.shape[1]
            ids[place, :length] = row[0]
            mask[place, :length] = 1
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
