"""Readouts: functions that reduce the last hidden state to the values that a task needs.

Uses only numpy, because the workers that run the model import it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from backends.base import Array

Readout = Callable[[Array, Array, Mapping[str, Array]], Array]
"""Function of the hidden state [batch, sequence, hidden], the mask int32 [batch, sequence] and the arrays of a head. It
returns FP32 [batch, ...]."""


def mean(hidden: Array, mask: Array, head: Mapping[str, Array]) -> Array:
    """Return the mean over all tokens except padding: [batch, hidden]."""
    is_token = mask.astype(bool)[..., None]
    return np.asarray(np.where(is_token, hidden.astype(np.float32), 0).sum(1) / is_token.sum(1), np.float32)


def maximum(hidden: Array, mask: Array, head: Mapping[str, Array]) -> Array:
    """Return the maximum of each feature over all tokens except padding: [batch, hidden]."""
    is_token = mask.astype(bool)[..., None]
    return np.asarray(np.where(is_token, hidden.astype(np.float32), -np.inf).max(1), np.float32)


def first(hidden: Array, mask: Array, head: Mapping[str, Array]) -> Array:
    """Return the hidden state of the first token: [batch, hidden].

    Classification heads and sentence encoders with the pooling mode "cls" use it.
    """
    return hidden[:, 0].astype(np.float32)


def spans(hidden: Array, mask: Array, head: Mapping[str, Array]) -> Array:
    """Return the scores of each token as first and last token of an answer: [batch, 2, sequence], 0 at padding.

    `head` has weight [2, hidden] and bias [2].
    """
    is_token = mask.astype(bool)[..., None]
    scores = np.where(is_token, hidden.astype(np.float32), 0) @ head["weight"].T + head["bias"]
    return np.asarray(np.where(is_token, scores, 0).swapaxes(1, 2), np.float32)


READOUTS: Mapping[str, Readout] = {"mean": mean, "max": maximum, "first": first, "spans": spans}
