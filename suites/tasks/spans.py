"""Scores of tokens as the first and the last of an answer, to the answers: the best span over a context's windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backends.base import Array

LONGEST_ANSWER = 30
"""Tokens; what SQuAD's baselines allow."""


def answers(scores: Array, text: Array, offsets: Array, contexts: Sequence[str]) -> list[str]:
    """The best answer out of each context.

    Args:
        scores: [windows, 2, sequence] of each token as first and last.
        text: the context of each window [windows].
        offsets: where in its context each token begins and ends [windows, sequence, 2], -1 for those outside it.
    """
    best: list[tuple[float, str]] = [(-np.inf, "")] * len(contexts)
    for (first, last), place, where in zip(scores, text, offsets, strict=True):
        inside = np.flatnonzero(where[:, 0] >= 0)
        if not inside.size:
            continue
        total = first[inside][:, None] + last[inside][None, :]
        # A span runs forwards and is not too long; a window's context has no gaps.
        total[~np.triu(np.tril(np.ones_like(total, bool), LONGEST_ANSWER - 1))] = -np.inf
        begin, end = np.unravel_index(int(total.argmax()), total.shape)
        if total[begin, end] > best[place][0]:
            span = slice(int(where[inside[begin], 0]), int(where[inside[end], 1]))
            best[place] = (float(total[begin, end]), contexts[place][span])
    return [answer for _, answer in best]
