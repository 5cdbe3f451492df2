"""Metrics of each kind of task, from the predictions of a path and of FP32.

The metrics are those of scipy, scikit-learn, seqeval and torchmetrics, and those of suites/tasks/ranked_metrics.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backends.base import Array
from backends.json_codec import from_json
from suites.tasks.bootstrap import Measure, compared
from suites.tasks.predictions import CUTOFF, Predictions, entities_of, gold_tags, reading_of
from suites.tasks.ranked_metrics import average_precision, normalized_gain, recall, reciprocal_rank
from suites.tasks.task_scores import TaskFigures


@dataclass(frozen=True)
class TwoPaths:
    """Predictions of a path and of FP32 on the same task.

    Attributes:
        targets: targets of the task.
        own, other: predictions of the path and of FP32.
        checkpoint: folder of the checkpoint, for its labels.
    """

    targets: Mapping[str, object]
    own: Predictions
    other: Predictions
    checkpoint: Path

    def changed(self, name: str) -> float:
        """Return the share of the predictions `name` that differ from those of FP32."""
        return float((self.own[name] != self.other[name]).mean())

    def against(self, truth: Array, name: str, metric: Callable[[Array, Array], float]) -> Measure:
        """Return the measure of a metric of the truth [rows, ...] and the predictions `name` [rows, ...]."""
        own, other = self.own[name], self.other[name]
        return lambda rows: (float(metric(truth[rows], own[rows])), float(metric(truth[rows], other[rows])))

    def mean(self, of: Callable[[Predictions], Array]) -> Measure:
        """Return the measure of the mean of a value of each row, from predictions."""
        own, other = of(self.own), of(self.other)
        return lambda rows: (float(own[rows].mean()), float(other[rows].mean()))


def _spearman(first: Array, second: Array) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def _pearson(first: Array, second: Array) -> float:
    from scipy.stats import pearsonr

    constant = np.ptp(first) == 0 or np.ptp(second) == 0
    return np.nan if constant or len(first) < 2 else float(pearsonr(first, second).statistic)


def _correlations(paths: TwoPaths, name: str) -> TaskFigures:
    """Compare the correlations of the predictions `name` with the scores."""
    scores = np.asarray(paths.targets["scores"], np.float64)
    measures = {metric: paths.against(scores, name, of) for metric, of in CORRELATIONS.items()}
    return compared(len(scores), measures)


CORRELATIONS = {"spearman": _spearman, "pearson": _pearson}


def _pairs(paths: TwoPaths) -> TaskFigures:
    """Compare the correlations between the cosine of each pair and its score."""
    return _correlations(paths, "similarity")


def _regression(paths: TwoPaths) -> TaskFigures:
    """Compare the correlations between the output for each text and its score."""
    return _correlations(paths, "scores")


def _banking77(paths: TwoPaths) -> TaskFigures:
    """Compare the mean accuracy of classifiers, each trained on a few texts per label."""
    labels = np.asarray(paths.targets["labels"])[np.asarray(paths.targets["test"])]
    figures = compared(len(labels), {"accuracy": paths.mean(lambda x: np.asarray((x["labels"] == labels).mean(0)))})
    return replace(figures, changed=paths.changed("labels"))


def _fidelity(paths: TwoPaths) -> TaskFigures:
    """Return the rank correlation of the similarities of all pairs of texts with those of FP32; 1 is the same order."""
    value = _spearman(paths.own["similarity"], paths.other["similarity"])
    return TaskFigures("rank agreement", value, value - 1.0, reference_value=1.0, gates=False)


def _ranked(paths: TwoPaths, relevances: list[list[float]], rest: Mapping[str, Measure]) -> TaskFigures:
    """Compare nDCG@10 and MRR@10, and the metrics `rest`.

    Args:
        relevances: relevance of all relevant documents of each query.
    """
    ideal = np.zeros((len(relevances), max(len(listed) for listed in relevances)))
    for row, listed in zip(ideal, relevances, strict=True):
        row[: len(listed)] = sorted(listed, reverse=True)
    measures = {
        f"nDCG@{CUTOFF}": paths.mean(lambda x: normalized_gain(x["gains"], ideal, CUTOFF)),
        f"MRR@{CUTOFF}": paths.mean(lambda x: reciprocal_rank(x["gains"], CUTOFF)),
        **rest,
    }
    return replace(compared(len(relevances), measures), changed=paths.changed("first"))


def _retrieval(paths: TwoPaths) -> TaskFigures:
    """Compare nDCG@10, MRR@10 and recall@k of the documents with the highest cosines."""
    listed = from_json(list[list[tuple[int, float]]], paths.targets["relevance"], "relevance")
    relevances, k = [[gain for _, gain in found] for found in listed], from_json(int, paths.targets["k"], "k")
    counts = np.asarray([len(found) for found in relevances])
    return _ranked(paths, relevances, {f"recall@{k}": paths.mean(lambda x: recall(x["gains"], counts, k))})


def _reranking(paths: TwoPaths) -> TaskFigures:
    """Compare nDCG@10, MRR@10 and MAP of the candidates in the order of their scores."""
    relevance = iter(from_json(list[float], paths.targets["relevance"], "relevance"))
    sizes = from_json(list[int], paths.targets["sizes"], "sizes")
    relevances = [[gain for gain in (next(relevance) for _ in range(size)) if gain] for size in sizes]
    counts = np.asarray([len(found) for found in relevances])
    return _ranked(paths, relevances, {"MAP": paths.mean(lambda x: average_precision(x["gains"], counts))})


def _classification(paths: TwoPaths) -> TaskFigures:
    """Compare the labels of the checkpoint's head, with the metric of the task."""
    from sklearn import metrics

    from backends.model.labels import label_names, label_places

    names = label_names(paths.checkpoint)
    given = from_json(list[str], paths.targets["labels"], "labels")
    labels = np.asarray(label_places(names, given, reading_of(paths.targets)))
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
    metric = str(paths.targets["metric"])
    figures = compared(len(labels), {metric: paths.against(labels, "labels", measures[metric])})
    return replace(figures, changed=paths.changed("labels"))


def _multi_label(paths: TwoPaths) -> TaskFigures:
    """Compare F1 over all labels of all texts (micro), and the mean of F1 over the labels that occur (macro)."""
    from backends.model.labels import label_names, label_places

    names, lists = label_names(paths.checkpoint), from_json(list[list[str]], paths.targets["labels"], "labels")
    truth = np.zeros((len(lists), len(names)), bool)
    places = iter(label_places(names, [label for listed in lists for label in listed], reading_of(paths.targets)))
    for row, listed in zip(truth, lists, strict=True):
        row[[next(places) for _ in listed]] = True
    occurring = np.flatnonzero(truth.any(0))

    def f1(correct: Array, predicted: Array) -> Array:
        """Return F1 of each label from counts. 0 for a label that no selected text has and that is not predicted."""
        both = (correct & predicted).sum(0)
        return np.asarray(2 * both / np.maximum(correct.sum(0) + predicted.sum(0), 1))

    def micro(correct: Array, predicted: Array) -> float:
        return float(f1(correct.reshape(-1, 1), predicted.reshape(-1, 1))[0])

    def macro(correct: Array, predicted: Array) -> float:
        return float(f1(correct[:, occurring], predicted[:, occurring]).mean())

    measures = {name: paths.against(truth, "labels", of) for name, of in {"F1 micro": micro, "F1 macro": macro}.items()}
    return replace(compared(len(truth), measures), changed=paths.changed("labels"))


def _token_classification(paths: TwoPaths) -> TaskFigures:
    """Compare F1 of entities, as seqeval computes it, and the share of tokens with the correct tag."""
    from backends.model.labels import label_names

    names, gold = label_names(paths.checkpoint), gold_tags(paths.targets, paths.checkpoint)
    outside = next((place for place, name in names.items() if name == "O"), -1)
    entities = np.asarray([len(entities_of([names[tag] for tag in tags])) for tags in gold])
    lengths = np.asarray([len(tags) for tags in gold])

    def f1(found: Predictions) -> Callable[[Array], float]:
        return lambda rows: float(2 * found["correct"][rows].sum() / max((found["found"] + entities)[rows].sum(), 1))

    def accuracy(found: Predictions) -> Callable[[Array], float]:
        predicted = np.where(found["tags"] < 0, outside, found["tags"])  # a token that was cut off has the tag O
        right = np.asarray([(row[: len(tags)] == tags).sum() for row, tags in zip(predicted, gold, strict=True)])
        return lambda rows: float(right[rows].sum() / lengths[rows].sum())

    def both(of: Callable[[Predictions], Callable[[Array], float]]) -> Measure:
        own, other = of(paths.own), of(paths.other)
        return lambda rows: (own(rows), other(rows))

    given = np.arange(paths.own["tags"].shape[1]) < lengths[:, None]
    changed = float((paths.own["tags"] != paths.other["tags"])[given].mean())
    return replace(compared(len(gold), {"F1": both(f1), "accuracy": both(accuracy)}), changed=changed)


def _question_answering(paths: TwoPaths) -> TaskFigures:
    """Compare SQuAD's F1 of the best spans; also return its exact match."""
    return replace(
        compared(len(paths.own["f1"]), {"F1": paths.mean(lambda x: x["f1"])}),
        exact_match=float(paths.own["exact"].mean()),
        reference_exact_match=float(paths.other["exact"].mean()),
        changed=paths.changed("answers"),
    )


def _mteb(paths: TwoPaths) -> TaskFigures:
    """Compare the main score of a task of mteb. It has no interval, because mteb gives one figure for all texts."""
    value, reference = (float(x["score"]) for x in (paths.own, paths.other))
    return TaskFigures(str(paths.targets["metric"]), value, value - reference, reference_value=reference)


COMPARISONS: Mapping[str, Callable[[TwoPaths], TaskFigures]] = {
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
