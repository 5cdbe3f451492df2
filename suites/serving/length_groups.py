"""Batches of requests of similar lengths, which need little padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from suites.serving.batch_policy import BatchPolicy

WINDOW = 4
"""Requests that are considered for a batch, as a multiple of its size: the oldest ones."""


def similar_requests(lengths: Sequence[int], policy: BatchPolicy) -> list[int]:
    """Return the places of the requests of the next batch, sorted by length.

    The batch has the oldest request, so that none waits without end. Of all such runs of requests in the order of their
    lengths, it is the largest one, and of those the one with the least padding.

    Args:
        lengths: number of tokens of each waiting request, the oldest first.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    sums = [0, *accumulate(lengths[place] for place in order)]
    oldest = order.index(0)
    best: tuple[int, int, int] | None = None
    for first in range(max(0, oldest - policy.most_requests + 1), oldest + 1):
        size = min(policy.most_requests, len(order) - first)
        if policy.most_tokens:
            size = policy.fitting(lengths[place] for place in order[first : first + size])
        if first + size > oldest:
            padding = size * lengths[order[first + size - 1]] - (sums[first + size] - sums[first])
            best = min(best or (-size, padding, first), (-size, padding, first))
    assert best is not None  # the run that begins with the oldest request has it
    size, _, first = best
    return order[first : first - size]
