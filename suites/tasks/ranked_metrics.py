"""Metrics of ranked documents, one value for each query.

Definitions of trec_eval: the gain of a document is its relevance, and rank r divides it by log2(r + 1). Documents with
equal scores are ranked with the least relevant first, so that equal outputs for all documents give no credit.
"""

from __future__ import annotations

import numpy as np

from backends.base import Array


def ranked(scores: Array, relevance: Array) -> Array:
    """Return the documents of a query from the highest score to the lowest: int [documents].

    Args:
        scores, relevance: [documents].
    """
    return np.lexsort((relevance, -scores))


def recall(gains: Array, relevant: Array, k: int) -> Array:
    """Return the share of the relevant documents that are among the first k: [queries].

    Args:
        gains: [queries, ranks] relevance of the ranked documents; 0 after the last one.
        relevant: [queries] number of relevant documents in the corpus.
    """
    return np.asarray((gains[:, :k] > 0).sum(1) / relevant)


def reciprocal_rank(gains: Array, k: int) -> Array:
    """Return 1 / rank of the first relevant document among the first k, or 0: [queries]."""
    hits = gains[:, :k] > 0
    return np.asarray(np.where(hits.any(1), 1 / (hits.argmax(1) + 1), 0.0))


def average_precision(gains: Array, relevant: Array) -> Array:
    """Return the mean of the precision at the rank of each relevant document: [queries]."""
    hits = gains > 0
    precision = hits.cumsum(1) / np.arange(1, gains.shape[1] + 1)
    return np.asarray((precision * hits).sum(1) / relevant)


def normalized_gain(gains: Array, ideal: Array, k: int) -> Array:
    """Return nDCG@k: [queries].

    Args:
        ideal: [queries, ranks] relevance of the relevant documents, the largest first; 0 after the last one.
    """

    def discounted(values: Array) -> Array:
        first = values[:, :k]
        return np.asarray((first / np.log2(np.arange(2, first.shape[1] + 2))).sum(1))

    return np.asarray(discounted(gains) / discounted(ideal))
