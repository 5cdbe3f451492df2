"""Predictions of a task from the outputs of a path: similarities, labels, ranks or answers, with standard libraries.

The predictions of FP32 are in the cache (suites/worker.py). So every path is compared with the same predictions, and
they are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.base import Array
from backends.json_codec import from_json
from suites.tasks.ranked_metrics import ranked

Predictions = Mapping[str, Array]

CUTOFF = 10
"""Number of documents that nDCG@10 and MRR@10 read."""


@dataclass(frozen=True)
class Outputs:
    """Outputs of a path on a task.

    Attributes:
        targets: targets of the task.
        values: [rows, ...] FP64, finite.
        inputs: other arrays about the rows that backends/inputs/task_batches.py wrote.
        checkpoint: folder of the checkpoint.
    """

    targets: Mapping[str, object]
    values: Array
    inputs: Mapping[str, Array]
    checkpoint: Path

    def lists(self, name: str) -> list[list[str]]:
        """Return a target that is a list of texts for each row."""
        return from_json(list[list[str]], self.targets[name], name)


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
        The arrays that the function of this kind describes.
    """
    return PREDICTIONS[kind](Outputs(targets, outputs.astype(np.float64), inputs, checkpoint))


def _pairs(outputs: Outputs) -> dict[str, Array]:
    """Return `similarity` [pairs], cosines."""
    pairs, embeddings = np.asarray(outputs.targets["pairs"]), unit_rows(outputs.values)
    return {"similarity": (embeddings[pairs[:, 0]] * embeddings[pairs[:, 1]]).sum(1)}


def _fidelity(outputs: Outputs) -> dict[str, Array]:
    """Return `similarity` [pairs] of all pairs of texts, cosines."""
    embeddings = unit_rows(outputs.values)
    return {"similarity": (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]}


def _banking77(outputs: Outputs) -> dict[str, Array]:
    """Return `labels` [experiments, texts] of the test texts; each experiment trains its own classifier."""
    from sklearn.linear_model import LogisticRegression

    labels, test = np.asarray(outputs.targets["labels"]), np.asarray(outputs.targets["test"])

    def predicted(picked: Sequence[int]) -> Array:
        classifier = LogisticRegression(random_state=42, max_iter=100).fit(outputs.values[picked], labels[picked])
        return np.asarray(classifier.predict(outputs.values[test]))

    experiments = from_json(list[list[int]], outputs.targets["experiments"], "experiments")
    return {"labels": np.stack([predicted(picked) for picked in experiments])}


def _classification(outputs: Outputs) -> dict[str, Array]:
    """Return `labels` [texts], indices of the labels of the checkpoint."""
    return {"labels": outputs.values.argmax(-1)}


def _multi_label(outputs: Outputs) -> dict[str, Array]:
    """Return `labels` bool [texts, labels]: the sigmoid of the logit is above 0.5."""
    return {"labels": outputs.values > 0}


def _regression(outputs: Outputs) -> dict[str, Array]:
    """Return `scores` [texts], the only logit of each."""
    return {"scores": outputs.values.reshape(len(outputs.values))}


def _retrieval(outputs: Outputs) -> dict[str, Array]:
    """Return, for the documents with the highest cosines, `gains` [queries, ranks], and `first` [queries], the first
    document of each query."""
    embeddings, targets = unit_rows(outputs.values), outputs.targets
    documents = embeddings[np.asarray(targets["corpus"])]
    relevances = from_json(list[list[tuple[int, float]]], targets["relevance"], "relevance")
    depth = max(CUTOFF, min(from_json(int, targets["k"], "k"), len(documents)))
    gains, first = np.zeros((len(relevances), depth)), np.zeros(len(relevances), np.int64)
    queries = from_json(list[int], targets["queries"], "queries")
    for number, (query, relevant) in enumerate(zip(queries, relevances, strict=True)):
        relevance = np.zeros(len(documents))
        relevance[[place for place, _ in relevant]] = [gain for _, gain in relevant]
        order = ranked(documents @ embeddings[query], relevance)[:depth]
        gains[number, : len(order)], first[number] = relevance[order], order[0]
    return {"gains": gains, "first": first}


def _reranking(outputs: Outputs) -> dict[str, Array]:
    """Return `gains` [queries, ranks] of the candidates in the order of their scores, 0 after the last one, and `first`
    [queries], the first candidate of each query."""
    sizes = from_json(list[int], outputs.targets["sizes"], "sizes")
    scores, relevance = outputs.values.reshape(sum(sizes)), np.asarray(outputs.targets["relevance"])
    gains, first, begin = np.zeros((len(sizes), max(sizes))), np.zeros(len(sizes), np.int64), 0
    for number, size in enumerate(sizes):
        own = slice(begin, begin + size)
        order = ranked(scores[own], relevance[own])
        gains[number, :size], first[number] = relevance[own][order], order[0]
        begin += size
    return {"gains": gains, "first": first}


def _token_classification(outputs: Outputs) -> dict[str, Array]:
    """Return `tags` [texts, tokens], indices of the labels of the checkpoint for the first sub-token of each token; -1
    for tokens that were cut off and after the last one. Also `correct` and `found` [texts], numbers of entities."""
    from backends.model.labels import label_names

    first = outputs.inputs["words"]
    places = np.take_along_axis(outputs.values.argmax(-1), np.maximum(first, 0), 1)
    tags = np.where(first >= 0, places, -1)
    names, correct, found = label_names(outputs.checkpoint), [], []
    for own, right in zip(tags, gold_tags(outputs.targets, outputs.checkpoint), strict=True):
        entities = entities_of([names.get(int(tag), "O") for tag in own[: len(right)]])
        correct.append(len(entities & entities_of([names[tag] for tag in right])))
        found.append(len(entities))
    return {"tags": tags, "correct": np.asarray(correct), "found": np.asarray(found)}


def gold_tags(targets: Mapping[str, object], checkpoint: Path) -> list[list[int]]:
    """Return the correct tags of each text, as indices of the labels of the checkpoint."""
    from backends.model.labels import label_names, label_places

    lists = from_json(list[list[str]], targets["tags"], "tags")
    flat = iter(label_places(label_names(checkpoint), [tag for listed in lists for tag in listed], reading_of(targets)))
    return [[next(flat) for _ in listed] for listed in lists]


def entities_of(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return type, first and last token of each entity, as seqeval finds them."""
    from seqeval.metrics.sequence_labeling import get_entities

    return set(get_entities(list(tags)))


def reading_of(targets: Mapping[str, object]) -> str:
    """Return how labels are read; one of READINGS in backends/model/labels.py."""
    return str(targets.get("reading", "auto"))


def _question_answering(outputs: Outputs) -> dict[str, Array]:
    """Return `answers`, `exact` and `f1`, each [questions]."""
    from suites.tasks.spans import answers

    contexts = from_json(list[str], outputs.targets["contexts"], "contexts")
    predicted = answers(outputs.values, outputs.inputs["text"], outputs.inputs["offsets"], contexts)
    exact, f1 = _squad(predicted, outputs.lists("answers"))
    return {"answers": np.asarray(predicted, np.str_), "exact": exact, "f1": f1}


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


def _mteb(outputs: Outputs) -> dict[str, Array]:
    """Return `score`, the main score of a task of mteb."""
    from suites.tasks.mteb_task import main_score

    return {"score": np.asarray(main_score(outputs.targets, outputs.values))}


PREDICTIONS: Mapping[str, Callable[[Outputs], dict[str, Array]]] = {
    "stsb": _pairs,
    "pairs": _pairs,
    "fidelity": _fidelity,
    "banking77": _banking77,
    "retrieval": _retrieval,
    "reranking": _reranking,
    "regression": _regression,
    "sequence_classification": _classification,
    "multi_label": _multi_label,
    "token_classification": _token_classification,
    "question_answering": _question_answering,
    "mteb": _mteb,
}
