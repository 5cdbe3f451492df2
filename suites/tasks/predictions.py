"""What a task makes of a path's outputs: similarities, labels or answers, by the libraries that others use for it.

FP32's are kept in the cache (suites/worker.py), so that every path is compared with the same and none pays for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array

Predictions = Mapping[str, Array]


def predictions(
    kind: str, targets: Mapping[str, Any], outputs: Array, inputs: Mapping[str, Array], checkpoint: Path
) -> dict[str, Array]:
    """Arrays by name, all without pickle.

    Args:
        kind: of a suites/tasks/task.py Task, which says what `targets` are.
        outputs: [rows, ...] finite, what backends/readout.py read.
        inputs: what else backends/evaluation.py wrote down of the rows.
        checkpoint: the folder whose head classifies.

    Returns:
        Of stsb and fidelity `similarity` [pairs], of banking77 `labels` [experiments, texts], of
        sequence_classification `labels` [texts] (places of the checkpoint's), of question_answering `answers`, `exact`
        and `f1` [questions].
    """
    outputs = outputs.astype(np.float64)
    if kind == "stsb":
        pairs, embeddings = np.asarray(targets["pairs"]), unit(outputs)
        return {"similarity": (embeddings[pairs[:, 0]] * embeddings[pairs[:, 1]]).sum(1)}
    if kind == "fidelity":
        embeddings = unit(outputs)
        return {"similarity": (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]}
    if kind == "banking77":
        from backends.pooling import pooling_of

        return {"labels": _learned(unit(outputs) if pooling_of(checkpoint).normalized else outputs, targets)}
    if kind == "sequence_classification":
        from backends.heads import classifier

        return {"labels": classifier(checkpoint)(outputs)}
    from suites.tasks.spans import answers

    said = answers(outputs, inputs["text"], inputs["offsets"], targets["contexts"])
    exact, f1 = _squad(said, targets["answers"])
    return {"answers": np.asarray(said, np.str_), "exact": exact, "f1": f1}


def _learned(embeddings: Array, targets: Mapping[str, Any]) -> Array:
    """Labels [experiments, texts] of the texts to test, by a classifier for each experiment."""
    from sklearn.linear_model import LogisticRegression

    labels, test = np.asarray(targets["labels"]), np.asarray(targets["test"])

    def learned(picked: Sequence[int]) -> Any:
        return LogisticRegression(random_state=42, max_iter=100).fit(embeddings[picked], labels[picked])

    return np.stack([learned(picked).predict(embeddings[test]) for picked in targets["experiments"]])


def _squad(said: Sequence[str], wanted: Sequence[Sequence[str]]) -> Array:
    """Exact match and F1 of each answer [2, answers], from 0 to 1."""
    from torchmetrics.functional.text import squad

    def judged(one: str, right: Sequence[str]) -> tuple[float, float]:
        target = {"id": "0", "answers": {"text": list(right), "answer_start": [0] * len(right)}}
        found = squad({"id": "0", "prediction_text": one}, target)
        return float(found["exact_match"]) / 100, float(found["f1"]) / 100

    return np.array([judged(one, right) for one, right in zip(said, wanted, strict=True)]).T


def unit(x: Array) -> Array:
    """Rows of length 1; a row of zeros stays."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30))
