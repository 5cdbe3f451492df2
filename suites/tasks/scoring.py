"""Accuracy of a path on a task, compared with FP32, and the confidence interval of their difference."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from backends.base import Array
from suites.measuring.output_difference import compare_outputs
from suites.tasks.comparisons import COMPARISONS, TwoPaths
from suites.tasks.predictions import Predictions, predictions
from suites.tasks.task_scores import TaskFigures, TaskScores


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant outputs; the NaN in the result is enough
        task = COMPARISONS[kind](TwoPaths(targets, own, other, checkpoint))
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
