"""Texts whose tokens make the rows of a batch, for times of the tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from backends.base import Shape
from backends.inputs.batches import InputSource, draw_lengths
from backends.model.tokenizer import load_tokenizer


@dataclass(frozen=True)
class RowTexts:
    """Sentences in turn, from which the text of a row is cut.

    Attributes:
        ends: for each sentence, the position in the text where each of its tokens ends.
    """

    sentences: Sequence[str]
    ends: Sequence[Sequence[int]]

    @classmethod
    def of(cls, origin: InputSource) -> RowTexts:
        """Tokenize the texts of `origin` with the fast tokenizer of its checkpoint."""
        tokenizer = load_tokenizer(origin.folder)
        offsets = tokenizer(list(origin.texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return cls(origin.texts, [[end for _, end in of_text] for of_text in offsets])

    def text(self, tokens: int, start: int) -> str:
        """Return a text of about this number of tokens, without special tokens, from sentence `start` on.

        The last word may be cut, and the cut word may have other tokens.
        """
        parts: list[str] = []
        count = len(self.sentences)
        for index in islice(cycle(range(count)), start % count, None):
            used = min(tokens, len(self.ends[index]))
            if used:
                parts.append(self.sentences[index][: self.ends[index][used - 1]])
            tokens -= used
            if tokens <= 0:
                return " ".join(parts)
        raise AssertionError("cycle has no end")


def batch_texts(origin: InputSource, shapes: Sequence[Shape]) -> dict[Shape, list[str]]:
    """Return the texts of a batch of each shape, with the lengths of its inputs. The inputs must be made of texts."""
    tokens, texts = origin.tokens(), RowTexts.of(origin)
    drawn = {shape: draw_lengths(origin.lengths, shape, tokens, origin.seed)[0] for shape in shapes}
    return {
        shape: [texts.text(max(0, length - tokens.around), row) for row, length in enumerate(lengths)]
        for shape, lengths in drawn.items()
    }
