"""Embeddings to a task's figure, beside FP32's and with an interval of their difference: by scipy and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backends.base import Array

RESAMPLES = 1000


def score(kind: str, targets: Mapping[str, Any], found: Array, reference: Array) -> dict[str, Any]:
    """What a path's embeddings are worth.

    Args:
        kind: "stsb", "banking77" or "fidelity".
        targets: see suites/task.py's Task.
        found, reference: [texts, hidden] mean-pooled, of the path and of FP32.

    Returns:
        nonfinite; where it is 0 also cosine_min, cosine_mean, max_difference, relative_error, metric (its name), value,
        reference_value, difference with its 95% interval [low, high] by paired bootstrap, verdict, and changed (share
        of predictions that differ from FP32's, where there are any).
    """
    nonfinite = int(np.count_nonzero(~np.isfinite(found)))
    if nonfinite:
        return {"nonfinite": nonfinite}
    found, reference = found.astype(np.float64), reference.astype(np.float64)
    cosine = (_unit(found) * _unit(reference)).sum(1)
    drift = {
        "nonfinite": 0,
        "cosine_min": float(cosine.min()),
        "cosine_mean": float(cosine.mean()),
        "max_difference": float(np.abs(found - reference).max()),
        "relative_error": float(np.linalg.norm(found - reference) / np.linalg.norm(reference)),
    }
    task = {"stsb": _stsb, "banking77": _banking77, "fidelity": _fidelity}[kind]
    return {**drift, **task(targets, _unit(found), _unit(reference))}


def _stsb(targets: Mapping[str, Any], found: Array, reference: Array) -> dict[str, Any]:
    """Spearman's rank correlation of the cosine of each pair with its score."""
    from scipy.stats import spearmanr

    pairs, scores = np.asarray(targets["pairs"]), np.asarray(targets["scores"])
    similar, wanted = ((x[pairs[:, 0]] * x[pairs[:, 1]]).sum(1) for x in (found, reference))

    def value(similarity: Array, rows: Array) -> float:
        return float(spearmanr(similarity[rows], scores[rows]).statistic)

    return _compared("spearman", len(scores), lambda rows: (value(similar, rows), value(wanted, rows)))


def _banking77(targets: Mapping[str, Any], found: Array, reference: Array) -> dict[str, Any]:
    """Mean accuracy of classifiers that each learn from a few texts a label."""
    labels, test = np.asarray(targets["labels"]), np.asarray(targets["test"])
    predicted = [_predictions(x, labels, targets["experiments"], test) for x in (found, reference)]
    right, right_reference = ((p == labels[test]).mean(0) for p in predicted)
    compared = _compared(
        "accuracy", len(test), lambda rows: (float(right[rows].mean()), float(right_reference[rows].mean()))
    )
    return {**compared, "changed": float((predicted[0] != predicted[1]).mean())}


def _predictions(embeddings: Array, labels: Array, experiments: list[list[int]], test: Array) -> Array:
    """Labels [experiments, texts] for the texts `test`."""
    from sklearn.linear_model import LogisticRegression

    def learned(picked: list[int]) -> Any:
        return LogisticRegression(random_state=42, max_iter=100).fit(embeddings[picked], labels[picked])

    return np.stack([learned(picked).predict(embeddings[test]) for picked in experiments])


def _fidelity(targets: Mapping[str, Any], found: Array, reference: Array) -> dict[str, Any]:
    """How far the similarities of all pairs of texts stand in FP32's order; 1 is FP32's own."""
    from scipy.stats import spearmanr

    upper = np.triu_indices(len(found), 1)
    similar, wanted = ((x @ x.T)[upper] for x in (found, reference))

    def value(rows: Array) -> float:
        return float(spearmanr(similar[rows], wanted[rows]).statistic)

    return _compared("rank agreement", len(similar), lambda rows: (value(rows), 1.0))


def _compared(metric: str, count: int, values: Callable[[Array], tuple[float, float]]) -> dict[str, Any]:
    """The metric over all rows and the paired bootstrap interval of its difference to the reference."""
    value, reference = values(np.arange(count))
    generator = np.random.default_rng(0)
    resampled = [values(generator.integers(0, count, count)) for _ in range(RESAMPLES)]
    low, high = np.percentile([one - other for one, other in resampled], [2.5, 97.5])
    return {
        "metric": metric,
        "value": value,
        "reference_value": reference,
        "difference": value - reference,
        "low": float(low),
        "high": float(high),
        "verdict": verdict(value - reference, float(low), float(high)),
    }


def verdict(difference: float, low: float, high: float) -> str:
    """In words: an interval that holds 0 tells no difference."""
    if low <= 0 <= high:
        return "no difference found"
    return f"{'worse' if difference < 0 else 'better'} by {abs(difference):.4f}"


def _unit(x: Array) -> Array:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30))
