"""Metrics of the tasks of the user's own data: figures worked by hand, and those of other libraries."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.base import Array
from backends.json_codec import from_json, to_json
from suites.tasks.predictions import predictions
from suites.tasks.ranked_metrics import average_precision, normalized_gain, ranked, recall, reciprocal_rank
from suites.tasks.scoring import score
from suites.tasks.task_scores import TaskFigures, TaskScores

FIVE = np.eye(5, dtype=np.float32)


def figures_of(
    kind: str, targets: Mapping[str, Any], outputs: Array, reference: Array | None = None, **others: Any
) -> TaskFigures:
    checkpoint = others.pop("checkpoint", Path())
    inputs = {"reference": outputs if reference is None else reference, **others}
    figures = score(kind, json.loads(json.dumps(targets)), outputs, inputs, checkpoint).figures
    assert figures is not None
    return figures


def values_of(figures: TaskFigures) -> dict[str, float]:
    return {figures.metric: figures.value, **{other.metric: other.value for other in figures.others}}


def on_a_circle(*degrees: float) -> Array:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def hand_set() -> tuple[dict[str, Any], Array]:
    """Return a retrieval set of 2 queries and 4 documents.

    Query 0 is at 0 degrees, the documents at 10, 20, 30 and 40: they rank as 0, 1, 2, 3. Query 1 is at 90 degrees: the
    documents rank as 3, 2, 1, 0. Relevant are documents 1 and 3 (twice as much) for query 0, and 2 for query 1.
    """
    targets = {"queries": [0, 1], "corpus": [2, 3, 4, 5], "relevance": [[[1, 1.0], [3, 2.0]], [[2, 1.0]]], "k": 2}
    return targets, on_a_circle(0, 90, 10, 20, 30, 40)


def test_retrieval_has_the_figures_worked_by_hand() -> None:
    figures = figures_of("retrieval", *hand_set())
    # Query 0: gains 0, 1, 0, 2. DCG = 1/log2(3) + 2/log2(5); ideal 2, 1: 2 + 1/log2(3).
    # Query 1: gains 0, 1, 0, 0. DCG = 1/log2(3); ideal 1.
    first = (1 / math.log2(3) + 2 / math.log2(5)) / (2 + 1 / math.log2(3))
    second = 1 / math.log2(3)
    assert values_of(figures) == pytest.approx(
        {"nDCG@10": (first + second) / 2, "MRR@10": 0.5, "recall@2": (0.5 + 1) / 2}
    )
    assert values_of(figures)["nDCG@10"] == pytest.approx(0.599069, abs=1e-6)
    assert (figures.difference, figures.changed, figures.verdict) == (0, 0, "no difference found")


def test_more_ranks_than_documents_need_no_memory(tmp_path: Path) -> None:
    targets, outputs = hand_set()
    found = predictions("retrieval", {**targets, "k": 10**12}, outputs, {}, tmp_path)
    assert found["gains"].shape == (2, 10)
    assert found["gains"][:, :4].tolist() == [[0, 1, 0, 2], [0, 1, 0, 0]]


def test_a_worse_path_is_compared_with_fp32_on_each_metric() -> None:
    targets, reference = hand_set()
    path = reference.copy()
    path[0] = on_a_circle(180)[0]  # query 0 now ranks the documents 3, 2, 1, 0
    figures = figures_of("retrieval", targets, path, reference)
    assert figures.changed == 0.5
    assert figures.difference > 0  # the document with the gain 2 is now first
    reciprocal, found = figures.others
    assert (reciprocal.value, reciprocal.reference_value, reciprocal.difference) == (0.75, 0.5, 0.25)
    assert (reciprocal.low, reciprocal.high) == (0.0, 0.5)
    assert (found.metric, found.value, found.reference_value, found.verdict) == ("recall@2", 0.75, 0.75,
                                                                                "no difference found")  # fmt: skip


def test_recall_counts_all_relevant_documents_and_k_may_be_above_the_corpus() -> None:
    targets, outputs = hand_set()
    for k, value in ((1, 0.0), (3, 0.75), (4, 1.0), (100, 1.0)):
        assert values_of(figures_of("retrieval", {**targets, "k": k}, outputs))[f"recall@{k}"] == value


def test_reranking_has_the_figures_worked_by_hand() -> None:
    targets = {"sizes": [3, 2], "relevance": [0.0, 1.0, 3.0, 1.0, 0.0]}
    figures = figures_of("reranking", targets, np.array([[9], [8], [-7], [0.1], [0.2]], np.float32))
    # Query 0 ranks 0, 1, 3; query 1 ranks 0, 1. Average precision: (1/2 + 2/3) / 2 and 1/2.
    first = (1 / math.log2(3) + 3 / 2) / (3 + 1 / math.log2(3))
    assert values_of(figures) == pytest.approx(
        {"nDCG@10": (first + 1 / math.log2(3)) / 2, "MRR@10": 0.5, "MAP": (7 / 12 + 0.5) / 2}
    )


def test_equal_scores_rank_the_relevant_documents_last() -> None:
    """A path that gives the same output for all documents must not profit from the order of its data."""
    targets = {"sizes": [3], "relevance": [1.0, 0.0, 0.0]}
    figures = figures_of("reranking", targets, np.ones((3, 1), np.float32))
    assert values_of(figures) == pytest.approx({"nDCG@10": 0.5, "MRR@10": 1 / 3, "MAP": 1 / 3})
    assert ranked(np.array([1.0, 2.0, 1.0]), np.array([1.0, 0.0, 0.0])).tolist() == [1, 2, 0]


def test_the_metrics_are_those_of_trec_eval() -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    generator = np.random.default_rng(0)
    queries, documents = 40, 60
    scores = generator.permuted(np.linspace(-1, 1, queries * documents)).reshape(queries, documents)
    relevance = generator.integers(0, 4, (queries, documents)) * (generator.random((queries, documents)) < 0.1)
    relevance[:, 0] = 1
    qrels = {f"q{q}": {f"d{d}": int(gain) for d, gain in enumerate(row)} for q, row in enumerate(relevance)}
    run = {f"q{q}": {f"d{d}": float(value) for d, value in enumerate(row)} for q, row in enumerate(scores)}
    names = {"ndcg_cut_10", "recall_10", "recall_30", "recip_rank", "map"}
    evaluated = pytrec_eval.RelevanceEvaluator(qrels, names).evaluate(run)
    expected = {name: np.array([evaluated[f"q{q}"][name] for q in range(queries)]) for name in sorted(names)}
    gains = np.stack([gain[ranked(value, gain)] for value, gain in zip(scores, relevance, strict=True)])
    counts, ideal = (relevance > 0).sum(1), -np.sort(-relevance, 1)
    np.testing.assert_allclose(normalized_gain(gains, ideal, 10), expected["ndcg_cut_10"], atol=1e-9)
    np.testing.assert_allclose(recall(gains, counts, 10), expected["recall_10"], atol=1e-9)
    np.testing.assert_allclose(recall(gains, counts, 30), expected["recall_30"], atol=1e-9)
    np.testing.assert_allclose(reciprocal_rank(gains, documents), expected["recip_rank"], atol=1e-9)
    np.testing.assert_allclose(average_precision(gains, counts), expected["map"], atol=1e-9)
    assert (reciprocal_rank(gains, 10) == np.where(expected["recip_rank"] < 0.1, 0, expected["recip_rank"])).all()


def test_pairs_and_regression_have_both_correlations() -> None:
    from scipy.stats import pearsonr, spearmanr

    generator = np.random.default_rng(0)
    embeddings, scores = generator.normal(size=(40, 6)).astype(np.float32), generator.normal(size=20).tolist()
    pairs = [[number, number + 20] for number in range(20)]
    first, second = embeddings[:20].astype(float), embeddings[20:].astype(float)
    cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    figures = figures_of("pairs", {"pairs": pairs, "scores": scores}, embeddings)
    expected = {"spearman": spearmanr(cosines, scores).statistic, "pearson": pearsonr(cosines, scores).statistic}
    assert values_of(figures) == pytest.approx(expected)
    outputs = cosines[:, None].astype(np.float32)
    assert values_of(figures_of("regression", {"scores": scores}, outputs)) == pytest.approx(expected)
    constant = figures_of("regression", {"scores": scores}, np.zeros((20, 1), np.float32), outputs)
    assert np.isnan([constant.value, constant.others[0].value]).all()
    assert (constant.verdict, constant.others[0].verdict) == ("no figure", "no figure")


def checkpoint(folder: Path, *names: str) -> Path:
    labels = {str(place): name for place, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "id2label": labels}))
    return folder


def test_several_labels_have_micro_and_macro_f1(tmp_path: Path) -> None:
    from sklearn.metrics import f1_score

    folder = checkpoint(tmp_path, "cat", "dog", "fish", "none")
    labels = [["cat"], ["cat", "dog"], [], ["fish"]]
    logits = np.array([[3, 1, -1, -1], [2, -1, -1, -1], [-1, -1, -1, -1], [-1, -1, -1, -1]], np.float32)
    # cat: 2 right. dog: 1 missed, 1 wrong. fish: 1 missed. none occurs nowhere. Micro: 2 * 2 / (3 found + 4 given).
    figures = figures_of("multi_label", {"labels": labels}, logits, checkpoint=folder)
    assert values_of(figures) == pytest.approx({"F1 micro": 4 / 7, "F1 macro": 1 / 3})
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]])
    for average in ("micro", "macro"):
        expected = f1_score(truth, logits[:, :3] > 0, average=average, zero_division=0)
        assert values_of(figures)[f"F1 {average}"] == pytest.approx(expected)
    other = logits.copy()
    other[3, 2] = 1
    assert figures_of("multi_label", {"labels": labels}, logits, other, checkpoint=folder).changed == 1 / 16


def test_entities_have_the_f1_of_seqeval(tmp_path: Path) -> None:
    from seqeval.metrics import f1_score

    names = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    folder = checkpoint(tmp_path, *names)
    generator = np.random.default_rng(0)
    gold = [[names[tag] for tag in generator.integers(0, 5, size)] for size in (4, 7, 1, 9, 6)]
    logits = generator.normal(size=(5, 24, 5)).astype(np.float32)
    words = np.full((5, 9), -1, np.int32)
    for row, tags in enumerate(gold):
        words[row, : len(tags)] = 1 + 2 * np.arange(len(tags))  # each token has two sub-tokens
        for place, tag in enumerate(tags):
            if generator.random() < 0.7:
                logits[row, 1 + 2 * place, names.index(tag)] += 9
    figures = figures_of("token_classification", {"tags": gold}, logits, checkpoint=folder, words=words)
    predicted = [
        [names[logits[row, 1 + 2 * place].argmax()] for place in range(len(tags))] for row, tags in enumerate(gold)
    ]
    right = sum(a == b for own, tags in zip(predicted, gold, strict=True) for a, b in zip(own, tags, strict=True))
    assert values_of(figures) == pytest.approx({"F1": f1_score(gold, predicted), "accuracy": right / 27})
    assert 0.2 < figures.value < 1
    assert figures.changed == 0


def test_tokens_that_were_cut_off_have_no_entity(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "B-PER", "O")
    logits = np.tile(np.array([1, 0], np.float32), (1, 6, 1))
    inputs = {"words": np.array([[1, 2, -1]], np.int32)}
    tags = {"tags": [["O", "O", "B-PER"]]}
    found = predictions("token_classification", tags, logits, inputs, folder)
    assert found["tags"].tolist() == [[0, 0, -1]]
    assert (found["found"].tolist(), found["correct"].tolist()) == ([2], [0])
    figures = figures_of("token_classification", tags, logits, checkpoint=folder, **inputs)
    assert values_of(figures) == {"F1": 0, "accuracy": 0}


def test_a_token_that_was_cut_off_has_the_tag_o_as_in_seqeval(tmp_path: Path) -> None:
    from seqeval.metrics import accuracy_score, f1_score

    folder = checkpoint(tmp_path, "B-PER", "O")
    logits = np.tile(np.array([1, 0], np.float32), (1, 6, 1))
    gold = [["B-PER", "O", "O", "B-PER", "O"]]
    predicted = [["B-PER", "B-PER", "O", "O", "O"]]
    words = np.array([[1, 2, -1, -1, -1]], np.int32)
    figures = figures_of("token_classification", {"tags": gold}, logits, checkpoint=folder, words=words)
    expected = {"F1": f1_score(gold, predicted), "accuracy": accuracy_score(gold, predicted)}
    assert values_of(figures) == pytest.approx(expected)
    assert expected["accuracy"] == pytest.approx(3 / 5)


def test_metrics_are_kept_in_a_record() -> None:
    scores = TaskScores(0, figures_of("retrieval", *hand_set()))
    stored = json.loads(json.dumps(to_json(scores)))
    assert [other["metric"] for other in stored["others"]] == ["MRR@10", "recall@2"]
    assert from_json(TaskScores, stored) == scores
    plain = TaskScores(0, TaskFigures("F1", 0.5, 0.0))
    assert "others" not in to_json(plain)
