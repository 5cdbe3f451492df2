"""Sequence lengths at which a checkpoint is compared with transformers, and the limits of memory and time."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.free_memory import free_memory
from backends.model.checkpoint_files import read_config, weight_files
from backends.model.families import positions_of, size_of

MOST_LENGTHS, FEWEST_LENGTHS = 64, 8

BUDGET = 5e11
"""Multiply-adds of one run over all lengths, some seconds on a CPU. Above it, fewer lengths are compared."""

MANY_LENGTHS_TO = 2048
"""Length up to which many lengths are compared. Plain attention needs memory and time for the square of a length, so
above it only the longest sequence and one of half its length are compared."""

SQUARES = 16
"""Upper bound of the arrays [sequence, sequence] of a head that plain attention has in memory at a time: scores, their
masked copies and probabilities, and with products of distances (DeBERTa) as many more."""

SCORES_PER_CORE = 2e9
"""Scores of attention, over all heads and layers, that a core may compute for the longer lengths, in some minutes."""

UNKNOWN_MEMORY = 8 << 30
"""Free bytes that are assumed if they are unknown."""


@dataclass(frozen=True)
class Lengths:
    """Lengths to compare.

    Attributes:
        longest: the longest one that was requested.
        many: lengths up to MANY_LENGTHS_TO, sorted.
        longer: longer ones, which fit into one batch, sorted.
        limit: "memory" or "time", of which longer lengths would need too much.
    """

    longest: int
    many: list[int]
    longer: list[int]
    limit: str


def lengths_to_compare(folder: Path, longest: int) -> Lengths:
    """Return the lengths at which a checkpoint is compared on this machine.

    Args:
        longest: number of tokens of the longest sequence of the cell.
    """
    config, parameters = read_config(folder), _parameters(folder)
    longest = min(longest, positions_of(config))
    free = (free_memory() or UNKNOWN_MEMORY) // 2 - 8 * parameters  # of two models in FP32
    heads, layers = size_of(config, "num_attention_heads"), size_of(config, "num_hidden_layers")
    scores = {
        "memory": free / (SQUARES * 4 * heads),
        "time": SCORES_PER_CORE * len(os.sched_getaffinity(0)) / (heads * layers),
    }
    limit = min(scores, key=lambda name: scores[name])
    longer = longer_lengths(longest, scores[limit])
    return Lengths(longest, checked_lengths(min(longest, MANY_LENGTHS_TO), parameters), longer, limit)


def checked_lengths(longest: int, parameters: int) -> list[int]:
    """Return the lengths to compare, from 1 to `longest`: all, or evenly spread ones if all would exceed BUDGET."""
    affordable = int(BUDGET / max(1, parameters * longest))
    count = min(longest, MOST_LENGTHS, max(FEWEST_LENGTHS, affordable))
    return sorted({int(length) for length in np.linspace(1, longest, count).round()})


def longer_lengths(longest: int, scores: float) -> list[int]:
    """Return lengths above MANY_LENGTHS_TO that can be compared as one batch.

    They are `longest` and its half, or only one sequence, as many times MANY_LENGTHS_TO as possible; or none.

    Args:
        scores: largest number of scores of a head, over all sequences.
    """
    if longest <= MANY_LENGTHS_TO:
        return []
    if 2 * longest**2 <= scores:
        return [longest // 2, longest]
    most = math.isqrt(max(0, int(scores)))
    whole = longest if most >= longest else most // MANY_LENGTHS_TO * MANY_LENGTHS_TO
    return [whole] if whole > MANY_LENGTHS_TO else []


def _parameters(folder: Path) -> int:
    """Return an upper bound of the parameters that each token is multiplied with, from the bytes of the weights."""
    return sum(path.stat().st_size for path in weight_files(folder)) // 4
