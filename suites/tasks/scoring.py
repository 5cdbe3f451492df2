"""A path's outputs to a task's figure, beside FP32's and with an interval of their difference.

The metrics are those of scipy, scikit-learn and torchmetrics.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array
from suites.tasks.predictions import Predictions, predictions, unit

RESAMPLES = 1000


def score(
    kind: str,
    targets: Mapping[str, Any],
    found: Array,
    inputs: Mapping[str, Array],
    checkpoint: Path,
    known: Predictions | None = None,
) -> dict[str, Any]:
    """What a path's outputs are worth.

    Args:
        kind: of a suites/tasks/task.py Task, which says what `targets` are.
        found: [rows, ...] what backends/readout.py read of the path's outputs.
        inputs: `reference`, the same of FP32's, and what else backends/evaluation.py wrote down of the rows.
        checkpoint: the folder whose head classifies.
        known: the task's predictions from the reference, where they are at hand.

    Returns:
        nonfinite; where it is 0 also cosine_min, cosine_mean, max_difference, relative_error, metric (its name), value,
        reference_value, difference (NaN where a figure is none), its 95% interval [low, high] by paired bootstrap and
        verdict, and changed (share of predictions that differ from FP32's, where there are any). Of fidelity there is
        no interval: pairs share texts, so that drawing pairs says nothing of other texts. It does not gate either.
    """
    nonfinite = int(np.count_nonzero(~np.isfinite(found)))
    if nonfinite:
        return {"nonfinite": nonfinite}
    own = predictions(kind, targets, found, inputs, checkpoint)
    other = known if known is not None else predictions(kind, targets, inputs["reference"], inputs, checkpoint)
    judge = {
        "stsb": _stsb,
        "banking77": _banking77,
        "fidelity": _fidelity,
        "sequence_classification": _classification,
        "question_answering": _question_answering,
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant outputs; their figure is NaN, which says it
        task = judge(targets, own, other, checkpoint)
    return {"nonfinite": 0, **_drift(found.astype(np.float64), inputs["reference"].astype(np.float64)), **task}


def _drift(found: Array, reference: Array) -> dict[str, float]:
    rows = [x.reshape(len(x), -1) for x in (found, reference)]
    cosine = (unit(rows[0]) * unit(rows[1])).sum(1)
    return {
        "cosine_min": float(cosine.min()),
        "cosine_mean": float(cosine.mean()),
        "max_difference": float(np.abs(found - reference).max()),
        "relative_error": float(np.linalg.norm(found - reference) / np.linalg.norm(reference)),
    }


def _rank(one: Array, other: Array) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


def _stsb(targets: Mapping[str, Any], own: Predictions, other: Predictions, checkpoint: Path) -> dict[str, Any]:
    """Spearman's rank correlation of the cosine of each pair with its score."""
    scores, (one, reference) = np.asarray(targets["scores"]), (x["similarity"] for x in (own, other))
    return _compared(
        "spearman", len(scores), lambda rows: (_rank(one[rows], scores[rows]), _rank(reference[rows], scores[rows]))
    )


def _banking77(targets: Mapping[str, Any], own: Predictions, other: Predictions, checkpoint: Path) -> dict[str, Any]:
    """Mean accuracy of classifiers that each learn from a few texts a label."""
    wanted = np.asarray(targets["labels"])[np.asarray(targets["test"])]
    right, right_reference = ((x["labels"] == wanted).mean(0) for x in (own, other))
    compared = _compared(
        "accuracy", len(wanted), lambda rows: (float(right[rows].mean()), float(right_reference[rows].mean()))
    )
    return {**compared, "changed": float((own["labels"] != other["labels"]).mean())}


def _fidelity(targets: Mapping[str, Any], own: Predictions, other: Predictions, checkpoint: Path) -> dict[str, Any]:
    """How far the similarities of all pairs of texts stand in FP32's order; 1 is FP32's own."""
    value = _rank(own["similarity"], other["similarity"])
    figures = {"metric": "rank agreement", "value": value, "reference_value": 1.0, "difference": value - 1.0}
    return {**figures, "gates": False}


def _classification(
    targets: Mapping[str, Any], own: Predictions, other: Predictions, checkpoint: Path
) -> dict[str, Any]:
    """What the checkpoint's head makes of first tokens, by the task's metric."""
    from sklearn import metrics

    from backends.labels import label_names, label_places

    names = label_names(checkpoint)
    labels, two = np.asarray(label_places(names, targets["labels"], targets.get("reading", "auto"))), len(names) == 2
    measures: dict[str, Callable[[Array, Array], float]] = {
        "accuracy": metrics.accuracy_score,
        # Of the second label where the checkpoint has two, as GLUE has it; of more, the mean over those of the texts.
        "f1": lambda wanted, got: (
            metrics.f1_score(wanted, got, zero_division=0)
            if two
            else metrics.f1_score(wanted, got, labels=np.unique(wanted), average="macro", zero_division=0)
        ),
        "matthews": metrics.matthews_corrcoef,
    }
    measure = measures[targets["metric"]]

    def values(rows: Array) -> tuple[float, float]:
        one, reference = (float(measure(labels[rows], x["labels"][rows])) for x in (own, other))
        return one, reference

    compared = _compared(targets["metric"], len(labels), values)
    return {**compared, "changed": float((own["labels"] != other["labels"]).mean())}


def _question_answering(
    targets: Mapping[str, Any], own: Predictions, other: Predictions, checkpoint: Path
) -> dict[str, Any]:
    """SQuAD's F1 of the best spans, and its exact match beside it."""

    def values(rows: Array) -> tuple[float, float]:
        return float(own["f1"][rows].mean()), float(other["f1"][rows].mean())

    matches = {"exact_match": float(own["exact"].mean()), "reference_exact_match": float(other["exact"].mean())}
    changed = float((own["answers"] != other["answers"]).mean())
    return {**_compared("F1", len(own["f1"]), values), **matches, "changed": changed}


def _compared(metric: str, count: int, values: Callable[[Array], tuple[float, float]]) -> dict[str, Any]:
    """The metric over all rows and the paired bootstrap interval of its difference to the reference."""
    value, reference = values(np.arange(count))
    generator = np.random.default_rng(0)
    resampled = [values(generator.integers(0, count, count)) for _ in range(RESAMPLES)]
    differences = np.array([one - other for one, other in resampled])
    usable = differences[np.isfinite(differences)]  # few rows, drawn again, may all be alike and have no rank
    low, high = np.percentile(usable, [2.5, 97.5]) if usable.size else (np.nan, np.nan)
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
    """In words: an interval that holds 0 tells no difference, and what is not a number is no figure."""
    if not np.isfinite([difference, low, high]).all():
        return "no figure"
    if low <= 0 <= high:
        return "no difference found"
    return f"{'worse' if difference < 0 else 'better'} by {abs(difference):.4f}"
