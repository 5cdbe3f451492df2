"""Difference between the outputs of a path and reference outputs. Every suite compares outputs with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from backends.base import Array

SMALLEST_NORM = 1e-30
"""Smallest divisor, so that outputs of zeros give a number."""

FEWEST_FEATURES = 8
"""Outputs with fewer features are logits, for which a cosine of single rows says little."""


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
        cosine: smallest cosine over sequences: of mean-pooled hidden states, or of embeddings. For logits, see
            `_compare_logits`.
        token_cosine: smallest cosine over single tokens; None for one output for each sequence.
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
        output: [batch, sequence, features] or [batch, features] of any float type.
        reference: FP32, the rows `rows` of such an output.
        rows: indices [rows] of the sequences of the batch that `reference` contains.
        mask: int32 [batch, sequence].
    """
    valid = mask.astype(bool) if output.ndim == 3 else np.ones(len(output), bool)
    if nonfinite := int(np.count_nonzero(~np.isfinite(output[valid]))):
        return ReferenceDifference(nonfinite)
    values, expected = output[rows].astype(np.float64), reference.astype(np.float64)
    if output.shape[-1] < FEWEST_FEATURES:
        return _compare_logits(values[valid[rows]], expected[valid[rows]])
    if output.ndim == 2:
        difference = compare_outputs(values, expected)
        return ReferenceDifference(0, float(difference.cosines.min()), max_difference=difference.max_difference)
    tokens = valid[rows]
    pooled = [np.where(tokens[..., None], x, 0).sum(1) / tokens.sum(1)[:, None] for x in (values, expected)]
    difference = compare_outputs(values[tokens], expected[tokens])
    return ReferenceDifference(
        nonfinite=0,
        cosine=float(compare_outputs(*pooled).cosines.min()),
        token_cosine=float(difference.cosines.min()),
        max_difference=difference.max_difference,
    )


def _compare_logits(output: Array, reference: Array) -> ReferenceDifference:
    """Compare logits, whose single rows have too few values for a cosine.

    The cosine is 2 a·b / (a·a + b·b) of all values a and b. It is 1 only if they are equal, also for a single value.
    """
    difference = compare_outputs(output, reference)
    sizes = max(float((output**2).sum() + (reference**2).sum()), SMALLEST_NORM)
    cosine = 2 * float((output * reference).sum()) / sizes
    return ReferenceDifference(0, cosine, max_difference=difference.max_difference)
