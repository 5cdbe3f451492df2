"""Predictions of a task from the outputs of a path: similarities, labels or answers, with standard libraries.

The predictions of FP32 are in the cache (suites/worker.py). So every path is compared with the same predictions, and
they are computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from backends.base import Array
from backends.json_codec import from_json

Predictions = Mapping[str, Array]


def predictions(
    kind: str, targets: Mapping[str, object], outputs: Array, inputs: Mapping[str, Array], checkpoint: Path
) -> dict[str, Array]:
    """Compute the predictions of a task, as arrays by name that need no pickle.

    Args:
        kind: the `kind` of a Task in suites/tasks/task.py; it gives the format of `targets`.
        outputs: [rows, ...] finite values, the outputs of the texts (backends/inputs/task_batches.py).
        inputs: other arrays about the rows that backends/inputs/task_batches.py wrote.
        checkpoint: the folder of the checkpoint, for its classification head.

    Returns:
        stsb and fidelity: `similarity` [pairs]. banking77: `labels` [experiments, texts]. sequence_classification:
        `labels` [texts], indices of the labels of the checkpoint. question_answering: `answers`, `exact` and `f1`, each
        [questions].
    """
    outputs = outputs.astype(np.float64)
    if kind == "stsb":
        pairs, embeddings = np.asarray(targets["pairs"]), unit_rows(outputs)
        return {"similarity": (embeddings[pairs[:, 0]] * embeddings[pairs[:, 1]]).sum(1)}
    if kind == "fidelity":
        embeddings = unit_rows(outputs)
        return {"similarity": (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]}
    if kind == "banking77":
        return {"labels": _classified(outputs, targets)}
    if kind == "sequence_classification":
        return {"labels": outputs.argmax(-1)}
    from suites.tasks.spans import answers

    contexts = from_json(list[str], targets["contexts"], "contexts")
    predicted = answers(outputs, inputs["text"], inputs["offsets"], contexts)
    exact, f1 = _squad(predicted, from_json(list[list[str]], targets["answers"], "answers"))
    return {"answers": np.asarray(predicted, np.str_), "exact": exact, "f1": f1}


def _classified(embeddings: Array, targets: Mapping[str, object]) -> Array:
    """Return labels [experiments, texts] of the test texts; each experiment trains its own classifier."""
    from sklearn.linear_model import LogisticRegression

    labels, test = np.asarray(targets["labels"]), np.asarray(targets["test"])

    def predicted(picked: Sequence[int]) -> Array:
        classifier = LogisticRegression(random_state=42, max_iter=100).fit(embeddings[picked], labels[picked])
        return np.asarray(classifier.predict(embeddings[test]))

    experiments = from_json(list[list[int]], targets["experiments"], "experiments")
    return np.stack([predicted(picked) for picked in experiments])


def _squad(predicted: Sequence[str], correct: Sequence[Sequence[str]]) -> Array:
    """Return exact match and F1 of each answer [2, answers], from 0 to 1."""
    from torchmetrics.functional.text import squad

    def scored(answer: str, texts: Sequence[str]) -> tuple[float, float]:
        target = {"id": "0", "answers": {"text": list(texts), "answer_start": [0] * len(texts)}}
        scores = squad({"id": "0", "prediction_text": answer}, target)
        return float(scores["exact_match"]) / 100, float(scores["f1"]) / 100

    return np.array([scored(answer, texts) for answer, texts in zip(predicted, correct, strict=True)]).T


def unit_rows(x: Array) -> Array:
    """Scale each row to length 1; a row of zeros is not changed."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30))
