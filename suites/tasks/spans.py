"""From scores of tokens as the first and the last of an answer to answers: the best span over a context's windows."""

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
    best: list[tuple[float, tuple[int, int]]] = [(-np.inf, (0, 0))] * len(contexts)
    covered = [np.zeros(len(context) + 1, np.int32) for context in contexts]
    for (first, last), place, where in zip(scores, text, offsets, strict=True):
        inside = np.flatnonzero(where[:, 0] >= 0)
        if not inside.size:
            continue
        np.add.at(covered[place], where[inside, 0], 1)
        np.add.at(covered[place], where[inside, 1], -1)
        total = first[inside][:, None] + last[inside][None, :]
        # A span runs forwards and is not too long; a window's context has no gaps.
        total[~np.triu(np.tril(np.ones_like(total, bool), LONGEST_ANSWER - 1))] = -np.inf
        begin, end = np.unravel_index(int(total.argmax()), total.shape)
        if total[begin, end] > best[place][0]:
            span = int(where[inside[begin], 0]), int(where[inside[end], 1])
            best[place] = (float(total[begin, end]), span)
    found = zip(contexts, covered, best, strict=True)
    return [context[whole_words(context, np.cumsum(marks) > 0, span)] for context, marks, (_, span) in found]


def whole_words(context: str, covered: Array, span: tuple[int, int]) -> slice:
    """`span` with the letters and digits next to it that no token covers.

    Some tokenizers (a byte-level one behind a split at blanks) give offsets that leave out the first letter of each
    word. Where tokens cover all letters, a span stays as it is.

    Args:
        covered: for each letter of the context whether some token of some window covers it.
    """
    begin, end = span
    if begin == end == 0:
        return slice(0, 0)
    while begin > 0 and context[begin - 1].isalnum() and not covered[begin - 1]:
        begin -= 1
    while end < len(context) and context[end].isalnum() and not covered[end]:
        end += 1
    return slice(begin, end)
