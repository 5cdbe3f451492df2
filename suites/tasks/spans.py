"""Answers from scores of tokens as first and last token of an answer: the best span over all windows of a context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backends.base import Array

LONGEST_ANSWER = 30
"""Largest number of tokens of an answer, as in the baselines of SQuAD."""


def answers(scores: Array, text: Array, offsets: Array, contexts: Sequence[str]) -> list[str]:
    """Return the best answer from each context.

    Args:
        scores: [windows, sequence, 2] of each token as first and as last token.
        text: [windows] index of the context of each window.
        offsets: [windows, sequence, 2] start and end of each token in its context; -1 for tokens outside it.
    """
    best: list[tuple[float, tuple[int, int]]] = [(-np.inf, (0, 0))] * len(contexts)
    covered = [np.zeros(len(context) + 1, np.int32) for context in contexts]
    for (first, last), index, token_offsets in zip(scores.swapaxes(1, 2), text, offsets, strict=True):
        inside = np.flatnonzero(token_offsets[:, 0] >= 0)
        if not inside.size:
            continue
        np.add.at(covered[index], token_offsets[inside, 0], 1)
        np.add.at(covered[index], token_offsets[inside, 1], -1)
        total = first[inside][:, None] + last[inside][None, :]
        # The last token is not before the first, and a span is not too long. The context of a window has no gaps.
        total[~np.triu(np.tril(np.ones_like(total, bool), LONGEST_ANSWER - 1))] = -np.inf
        begin, end = np.unravel_index(int(total.argmax()), total.shape)
        if total[begin, end] > best[index][0]:
            span = int(token_offsets[inside[begin], 0]), int(token_offsets[inside[end], 1])
            best[index] = (float(total[begin, end]), span)
    spans = zip(contexts, covered, best, strict=True)
    return [context[whole_words(context, np.cumsum(marks) > 0, span)] for context, marks, (_, span) in spans]


def whole_words(context: str, covered: Array, span: tuple[int, int]) -> slice:
    """Extend `span` by the letters and digits next to it that no token covers.

    Some tokenizers (byte-level after a split at blanks) give offsets that omit the first letter of each word. Where
    tokens cover all letters, the span is not changed.

    Args:
        covered: for each character of the context, whether a token of any window covers it.
    """
    begin, end = span
    if begin == end == 0:
        return slice(0, 0)
    while begin > 0 and context[begin - 1].isalnum() and not covered[begin - 1]:
        begin -= 1
    while end < len(context) and context[end].isalnum() and not covered[end]:
        end += 1
    return slice(begin, end)
