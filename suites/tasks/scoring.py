"""A path's outputs to a task's figure, beside FP32's and with an interval of their difference.

The metrics are those of scipy, scikit-learn and torchmetrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array

RESAMPLES = 1000


def score(
    kind: str, targets: Mapping[str, Any], found: Array, inputs: Mapping[str, Array], checkpoint: Path
) -> dict[str, Any]:
    """What a path's outputs are worth.

    Args:
        kind: of a suites/tasks/task.py Task, which says what `targets` are.
        found: [rows, ...] what backends/readout.py read of the path's outputs.
        inputs: `reference`, the same of FP32's, and what else backends/evaluation.py wrote down of the rows.
        checkpoint: the folder whose head classifies.

    Returns:
        nonfinite; where it is 0 also cosine_min, cosine_mean, max_difference, relative_error, metric (its name), value,
        reference_value, difference with its 95% interval [low, high] by paired bootstrap, verdict, and changed (share
        of predictions that differ from FP32's, where there are any).
    """
    nonfinite = int(np.count_nonzero(~np.isfinite(found)))
    if nonfinite:
        return {"nonfinite": nonfinite}
    both = found.astype(np.float64), inputs["reference"].astype(np.float64)
    if kind == "sequence_classification":
        task = _classification(targets, *both, checkpoint)
    elif kind == "question_answering":
        task = _question_answering(targets, *both, inputs)
    else:
        units = (_unit(x) for x in both)
        task = {"stsb": _stsb, "banking77": _banking77, "fidelity": _fidelity}[kind](targets, *units)
    return {"nonfinite": 0, **_drift(*both), **task}


def _drift(found: Array, reference: Array) -> dict[str, float]:
    rows = [x.reshape(len(x), -1) for x in (found, reference)]
    cosine = (_unit(rows[0]) * _unit(rows[1])).sum(1)
    return {
        "cosine_min": float(cosine.min()),
        "cosine_mean": float(cosine.mean()),
        "max_difference": float(np.abs(found - reference).max()),
        "relative_error": float(np.linalg.norm(found - reference) / np.linalg.norm(reference)),
    }


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


def _classification(targets: Mapping[str, Any], found: Array, reference: Array, checkpoint: Path) -> dict[str, Any]:
    """What the checkpoint's head makes of first tokens, by the task's metric."""
    from sklearn import metrics

    from backends.heads import classifier, known_labels

    labels, classify = np.asarray(known_labels(checkpoint, targets["labels"])), classifier(checkpoint)
    predicted = [classify(x) for x in (found, reference)]
    measures: dict[str, Callable[[Array, Array], float]] = {
        "accuracy": metrics.accuracy_score,
        # Of the second label where there are two, as GLUE has it; of more, the mean over them.
        "f1": lambda wanted, got: metrics.f1_score(
            wanted, got, average="binary" if len(set(targets["labels"])) <= 2 else "macro", zero_division=0
        ),
        "matthews": metrics.matthews_corrcoef,
    }
    measure = measures[targets["metric"]]

    def values(rows: Array) -> tuple[float, float]:
        one, other = (float(measure(labels[rows], p[rows])) for p in predicted)
        return one, other

    compared = _compared(targets["metric"], len(labels), values)
    return {**compared, "changed": float((predicted[0] != predicted[1]).mean())}


def _question_answering(
    targets: Mapping[str, Any], found: Array, reference: Array, inputs: Mapping[str, Array]
) -> dict[str, Any]:
    """SQuAD's F1 of the best spans, and its exact match beside it."""
    from suites.tasks.spans import answers

    said = [answers(x, inputs["text"], inputs["offsets"], targets["contexts"]) for x in (found, reference)]
    exact, f1 = np.stack([_squad(one, targets["answers"]) for one in said], axis=1)

    def values(rows: Array) -> tuple[float, float]:
        return float(f1[0, rows].mean()), float(f1[1, rows].mean())

    changed = float(np.mean([one != other for one, other in zip(*said, strict=True)]))
    matches = {"exact_match": float(exact[0].mean()), "reference_exact_match": float(exact[1].mean())}
    return {**_compared("F1", f1.shape[1], values), **matches, "changed": changed}


def _squad(said: Sequence[str], wanted: Sequence[Sequence[str]]) -> Array:
    """Exact match and F1 of each answer [2, answers], from 0 to 1."""
    from torchmetrics.functional.text import squad

    def judged(one: str, right: Sequence[str]) -> tuple[float, float]:
        target = {"id": "0", "answers": {"text": list(right), "answer_start": [0] * len(right)}}
        found = squad({"id": "0", "prediction_text": one}, target)
        return float(found["exact_match"]) / 100, float(found["f1"]) / 100

    return np.array([judged(one, right) for one, right in zip(said, wanted, strict=True)]).T


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
