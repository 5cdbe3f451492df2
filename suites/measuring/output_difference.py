"""Difference between the outputs of a path and reference outputs. Every suite compares outputs with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from backends.base import Array

SMALLEST_NORM = 1e-30
"""Smallest divisor, so that outputs of zeros give a number."""


@dataclass(frozen=True)
class OutputDifference:
    """Difference of two FP64 arrays of the same shape [..., features]. Figures are computed when they are read."""

    output: Array
    reference: Array

    @property
    def nonfinite(self) -> int:
        """Number of NaN and Inf in the output. If it is not 0, the other figures are NaN or Inf."""
        return int(np.count_nonzero(~np.isfinite(self.output)))

    @cached_property
    def max_difference(self) -> float:
        """Largest absolute difference."""
        return float(np.abs(self.output - self.reference).max())

    @property
    def relative_to_largest(self) -> float:
        """Largest absolute difference, divided by the largest absolute value of the reference."""
        return self.max_difference / max(float(np.abs(self.reference).max()), SMALLEST_NORM)

    @property
    def relative_error(self) -> float:
        """Frobenius norm of the difference, divided by that of the reference."""
        return float(np.linalg.norm(self.output - self.reference) / np.linalg.norm(self.reference))

    @cached_property
    def cosines(self) -> Array:
        """Cosine of each row of features, shape [...]."""
        norms = np.linalg.norm(self.output, axis=-1) * np.linalg.norm(self.reference, axis=-1)
        return np.asarray((self.output * self.reference).sum(-1) / np.maximum(norms, SMALLEST_NORM))


@dataclass(frozen=True)
class ReferenceDifference:
    """Difference of an output from the FP32 reference, over tokens that are not padding.

    Attributes:
        nonfinite: number of NaN and Inf in the whole output; if there are any, the others are None.
        cosine: smallest cosine of mean-pooled hidden states over sequences.
        token_cosine: smallest cosine over single tokens.
        max_difference: largest absolute difference.
    """

    nonfinite: int
    cosine: float | None = None
    token_cosine: float | None = None
    max_difference: float | None = None


def compare_outputs(output: Array, reference: Array) -> OutputDifference:
    """Compare two arrays [..., features] of any float type in FP64.

    Raises:
        ValueError: their shapes differ.
    """
    if output.shape != reference.shape:
        raise ValueError(f"outputs of shape {output.shape} cannot be compared with a reference of {reference.shape}")
    return OutputDifference(output.astype(np.float64), reference.astype(np.float64))


def compare_with_reference(output: Array, reference: Array, rows: Array, mask: Array) -> ReferenceDifference:
    """Compare an output with the FP32 reference, over tokens that are not padding.

    Args:
        output: [batch, sequence, hidden] of any float type.
        reference: [rows, sequence, hidden] FP32.
        rows: indices [rows] of the sequences of the batch that `reference` contains.
        mask: int32 [batch, sequence].
    """
    valid = mask.astype(bool)
    if nonfinite := int(np.count_nonzero(~np.isfinite(output[valid]))):
        return ReferenceDifference(nonfinite)
    tokens = valid[rows]
    hidden, expected = output[rows].astype(np.float64), reference.astype(np.float64)
    pooled = [np.where(tokens[..., None], x, 0).sum(1) / tokens.sum(1)[:, None] for x in (hidden, expected)]
    difference = compare_outputs(hidden[tokens], expected[tokens])
    return ReferenceDifference(
        nonfinite=0,
        cosine=float(compare_outputs(*pooled).cosines.min()),
        token_cosine=float(difference.cosines.min()),
        max_difference=difference.max_difference,
    )
