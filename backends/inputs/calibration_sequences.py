"""Token batches that calibrate INT8: sentences of the task, or sequences with the lengths of the cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.base import Array, Shape
from backends.inputs.batches import Tokens, draw_lengths
from backends.inputs.lengths import Lengths
from backends.model.checkpoint import input_names
from backends.model.checkpoint_files import read_config
from backends.model.families import positions_of

CALIBRATION_ROWS, CALIBRATION_TOKENS = 8, 4096
"""Most sequences of a calibration batch, and most of its tokens if sequences are longer than 512 tokens. Attention
scores of one sequence of 8,192 tokens have 256 MB per head."""


@dataclass(frozen=True)
class CalibrationSize:
    """Number and kind of calibration sequences.

    Attributes:
        samples: number of sequences.
        sequence: longest sequence in tokens.
        tokens: "text", "random" or "auto" (text if the checkpoint has a tokenizer).
        lengths: distribution of the lengths up to `sequence`; None for sequences of 1 to 4 sentences.
    """

    samples: int
    sequence: int
    tokens: str = "auto"
    lengths: Lengths | None = None

    def drawn(self, source: Tokens, longest: int, seed: int) -> list[int]:
        """Return the number of tokens of each sequence, at most `longest`."""
        if self.lengths:
            return draw_lengths(self.lengths, Shape(self.samples, longest), source, seed)[0]
        inside = (
            sum(source.natural_length(row + k) - source.around for k in range(1 + row % 4))
            for row in range(self.samples)
        )
        return [min(longest, length + source.around) for length in inside]


def calibration_batches(folder: Path, texts: Sequence[str], size: CalibrationSize, seed: int) -> list[dict[str, Array]]:
    """Return batches of at most 8 calibration sequences, int32 [rows, sequence] by input name.

    Sequences are padded to the longest one, which has at most as many tokens as the model has positions. All batches
    have the same shape, because calibrators require it; the first sequences fill up the last batch.
    """
    source = Tokens.of(folder, size.tokens, texts, seed)
    names = input_names(folder)
    drawn = size.drawn(source, min(size.sequence, positions_of(read_config(folder))), seed)
    longest = max(drawn)
    count = max(1, min(CALIBRATION_ROWS, CALIBRATION_TOKENS // longest))
    rows = [row % size.samples for row in range(size.samples + -size.samples % count)]
    batches = [rows[start : start + count] for start in range(0, len(rows), count)]
    return [source.feeds([drawn[row] for row in batch], longest, names, batch) for batch in batches]
