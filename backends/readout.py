"""What is kept of a model's last hidden state for a task: numpy alone, for the workers that run the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from backends.base import Array

Readout = Callable[[Array, Array, Mapping[str, Array]], Array]
"""From the hidden state [batch, sequence, hidden], the mask int32 [batch, sequence] and the arrays of a head to one
FP32 array a row."""


def mean(hidden: Array, mask: Array, head: Mapping[str, Array]) -> Array:
    """The mean over tokens that are not padding: [batch, hidden]."""
    kept = mask.astype(bool)[..., None]
    return np.asarray(np.where(kept, hidden.astype(np.float32), 0).sum(1) / kept.sum(1), np.float32)


def maximum(hidden: Array, mask: Array, head: Mapping[str, Array]) -> Array:
    """The largest value of each feature over tokens that are not padding: [batch, hidden]."""
    kept = mask.astype(bool)[..., None]
    return np.asarray(np.where(kept, hidden.astype(np.float32), -np.inf).max(1), np.float32)


def first(hidden: Array, mask: Array, head: Mapping[str, Array]) -> Array:
    """The first token's, which classification heads and sentence encoders of kind "cls" read: [batch, hidden]."""
    return hidden[:, 0].astype(np.float32)


def spans(hidden: Array, mask: Array, head: Mapping[str, Array]) -> Array:
    """Scores of each token as the first and the last of an answer: [batch, 2, sequence], 0 where there is padding.

    `head` has weight [2, hidden] and bias [2].
    """
    kept = mask.astype(bool)[..., None]
    scores = np.where(kept, hidden.astype(np.float32), 0) @ head["weight"].T + head["bias"]
    return np.asarray(np.where(kept, scores, 0).swapaxes(1, 2), np.float32)


READOUTS: Mapping[str, Readout] = {"mean": mean, "max": maximum, "first": first, "spans": spans}
