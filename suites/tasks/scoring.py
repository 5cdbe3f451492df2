"""Accuracy of a path on a task, compared with FP32, and the confidence interval of their difference.

The metrics are those of scipy, scikit-learn and torchmetrics.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from backends.base import Array
from backends.json_codec import from_json
from suites.measuring.output_difference import compare_outputs
from suites.tasks.predictions import Predictions, predictions
from suites.tasks.task_scores import TaskFigures, TaskScores

RESAMPLES = 1000
"""Bootstrap resamples of the rows."""


def score(
    kind: str,
    targets: Mapping[str, object],
    readouts: Array,
    inputs: Mapping[str, Array],
    checkpoint: Path,
    reference_predictions: Predictions | None = None,
) -> TaskScores:
    """Score the outputs of a path on a task.

    Args:
        kind: the `kind` of a Task in suites/tasks/task.py; it gives the format of `targets`.
        readouts: [rows, ...] the outputs of the path.
        inputs: `reference`, the outputs of FP32, and other arrays about the rows that backends/inputs/task_batches.py
            wrote.
        checkpoint: the folder of the checkpoint, for its classification head.
        reference_predictions: the predictions from the reference; None computes them.

    fidelity has no interval, because its pairs share texts, so a resample of pairs does not represent other texts. It
    also has `gates` False: it cannot make a path invalid.
    """
    nonfinite = int(np.count_nonzero(~np.isfinite(readouts)))
    if nonfinite:
        return TaskScores(nonfinite)
    own = predictions(kind, targets, readouts, inputs, checkpoint)
    other = reference_predictions
    if other is None:
        other = predictions(kind, targets, inputs["reference"], inputs, checkpoint)
    compare = {
        "stsb": _stsb,
        "banking77": _banking77,
        "fidelity": _fidelity,
        "sequence_classification": _classification,
        "question_answering": _question_answering,
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant outputs; the NaN in the result is enough
        task = compare(targets, own, other, checkpoint)
    return TaskScores(0, _with_errors(task, readouts, inputs["reference"]))


def _with_errors(figures: TaskFigures, readouts: Array, reference: Array) -> TaskFigures:
    difference = compare_outputs(*(values.reshape(len(values), -1) for values in (readouts, reference)))
    return replace(
        figures,
        cosine_min=float(difference.cosines.min()),
        cosine_mean=float(difference.cosines.mean()),
        max_difference=difference.max_difference,
        relative_error=difference.relative_error,
    )


def _rank(first: Array, second: Array) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def _stsb(targets: Mapping[str, object], own: Predictions, other: Predictions, checkpoint: Path) -> TaskFigures:
    """Compare Spearman's rank correlation between the cosine of each pair and its score."""
    scores, (similarity, reference) = np.asarray(targets["scores"]), (x["similarity"] for x in (own, other))
    return _compared(
        "spearman",
        len(scores),
        lambda rows: (_rank(similarity[rows], scores[rows]), _rank(reference[rows], scores[rows])),
    )


def _banking77(targets: Mapping[str, object], own: Predictions, other: Predictions, checkpoint: Path) -> TaskFigures:
    """Compare the mean accuracy of classifiers, each trained on a few texts per label."""
    labels = np.asarray(targets["labels"])[np.asarray(targets["test"])]
    correct, correct_reference = ((x["labels"] == labels).mean(0) for x in (own, other))
    compared = _compared(
        "accuracy", len(labels), lambda rows: (float(correct[rows].mean()), float(correct_reference[rows].mean()))
    )
    return replace(compared, changed=float((own["labels"] != other["labels"]).mean()))


def _fidelity(targets: Mapping[str, object], own: Predictions, other: Predictions, checkpoint: Path) -> TaskFigures:
    """Return the rank correlation of the similarities of all pairs of texts with those of FP32; 1 is the same order."""
    value = _rank(own["similarity"], other["similarity"])
    return TaskFigures("rank agreement", value, value - 1.0, reference_value=1.0, gates=False)


def _classification(
    targets: Mapping[str, object], own: Predictions, other: Predictions, checkpoint: Path
) -> TaskFigures:
    """Compare the labels that the head of the checkpoint gives for first tokens, with the metric of the task."""
    from sklearn import metrics

    from backends.model.labels import label_names, label_places

    names = label_names(checkpoint)
    given = from_json(list[str], targets["labels"], "labels")
    labels = np.asarray(label_places(names, given, str(targets.get("reading", "auto"))))
    binary = len(names) == 2
    measures: dict[str, Callable[[Array, Array], float]] = {
        "accuracy": metrics.accuracy_score,
        # Two labels: F1 of the second label, as in GLUE. More labels: the mean over the labels of the texts.
        "f1": lambda correct, predicted: (
            metrics.f1_score(correct, predicted, zero_division=0)
            if binary
            else metrics.f1_score(correct, predicted, labels=np.unique(correct), average="macro", zero_division=0)
        ),
        "matthews": metrics.matthews_corrcoef,
    }
    metric = str(targets["metric"])
    measure = measures[metric]

    def values(rows: Array) -> tuple[float, float]:
        value, reference = (float(measure(labels[rows], x["labels"][rows])) for x in (own, other))
        return value, reference

    compared = _compared(metric, len(labels), values)
    return replace(compared, changed=float((own["labels"] != other["labels"]).mean()))


def _question_answering(
    targets: Mapping[str, object], own: Predictions, other: Predictions, checkpoint: Path
) -> TaskFigures:
    """Compare SQuAD's F1 of the best spans; also return its exact match."""

    def values(rows: Array) -> tuple[float, float]:
        return float(own["f1"][rows].mean()), float(other["f1"][rows].mean())

    return replace(
        _compared("F1", len(own["f1"]), values),
        exact_match=float(own["exact"].mean()),
        reference_exact_match=float(other["exact"].mean()),
        changed=float((own["answers"] != other["answers"]).mean()),
    )


def _compared(metric: str, count: int, values: Callable[[Array], tuple[float, float]]) -> TaskFigures:
    """Return the metric over all rows, and the paired bootstrap interval of its difference from the reference.

    Args:
        metric: name of the metric.
        count: number of rows.
        values: returns the metric of the path and of the reference for selected rows.
    """
    value, reference = values(np.arange(count))
    generator = np.random.default_rng(0)
    resampled = [values(generator.integers(0, count, count)) for _ in range(RESAMPLES)]
    differences = np.array([own - other for own, other in resampled])
    usable = differences[
        np.isfinite(differences)
    ]  # a resample of few rows may have only equal values, which have no rank
    low, high = np.percentile(usable, [2.5, 97.5]) if usable.size else (np.nan, np.nan)
    return TaskFigures(
        metric,
        value,
        value - reference,
        reference_value=reference,
        low=float(low),
        high=float(high),
        verdict=verdict(value - reference, float(low), float(high)),
    )


def verdict(difference: float, low: float, high: float) -> str:
    """Return the verdict in words: "no difference found" if the interval contains 0, "no figure" for NaN."""
    if not np.isfinite([difference, low, high]).all():
        return "no figure"
    if low <= 0 <= high:
        return "no difference found"
    return f"{'worse' if difference < 0 else 'better'} by {abs(difference):.4f}"
