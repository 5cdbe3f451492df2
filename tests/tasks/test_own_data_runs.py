"""Tasks of the user's own data through the pipeline. The figures are those of the outputs of transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli, json_of, table_in
from word_models import WORDS, word_model

from backends.base import Array
from backends.inputs.tokenized import tokenize_words
from suites.records.results_folder import read_records
from suites.schema.config import TaskConfig
from suites.schema.enums import TaskKind
from suites.tasks.scoring import score
from suites.tasks.task import load_task

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
ONE = {"num_labels": 1}
SEVERAL = {"id2label": {0: "x", 1: "y", 2: "z"}, "problem_type": "multi_label_classification"}
TOKENS = {"id2label": dict(enumerate(TAGS))}


def texts(count: int, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(2, 8))) for _ in range(count)]


def written(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


Scored = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def scored(fast_cli: Cli, tmp_path: Path) -> Scored:
    """Return a function that runs a task and returns the scores of each backend."""

    def run(task: str, folder: Path, rows: Sequence[dict[str, Any]], *words: str) -> list[dict[str, Any]]:
        done = fast_cli("-m", "backend=torch_eager,ort", f"model.path={folder}", "model.name=mine", "suite=accuracy",
                        f"task={task}", f"task.path={written(tmp_path, rows)}", "batch=[3,8]", "sequence=[8,16,32]",
                        "device=cpu", *words)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        records = list(read_records(tmp_path / "results", "accuracy"))
        scores = [json_of(record)["scores"] for record in records]
        assert len(scores) == 2
        for one in scores:
            assert one.get("changed", 0) == 0
            assert all(abs(figures["difference"]) < 1e-5 for figures in (one, *one["others"]))
        return scores

    return run


def values(scores: dict[str, Any]) -> dict[str, float]:
    return {scores["metric"]: scores["value"], **{other["metric"]: other["value"] for other in scores["others"]}}


def logits(folder: Path, head: str, examples: Sequence[Any]) -> list[Array]:
    """Return the logits of transformers' model for each text or pair of texts, run alone."""
    import torch
    import transformers

    model = getattr(transformers, f"AutoModelFor{head}").from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return [
            model(**tokenizer(*([example] if isinstance(example, str) else example), return_tensors="pt"))
            .logits[0]
            .numpy()
            for example in examples
        ]


def figures(kind: str, config: TaskConfig, outputs: Array, folder: Path) -> dict[str, float]:
    """Return the figures of given outputs on a task."""
    result = score(kind, load_task(config).targets, outputs, {"reference": outputs}, folder).figures
    assert result is not None
    return {result.metric: result.value, **{other.metric: other.value for other in result.others}}


def test_pairs_and_retrieval_are_scored_by_embeddings(scored: Scored, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = word_model(tmp_path / "model")
    first, second = texts(12), texts(12, seed=1)
    pairs = [
        {"sentence1": a, "sentence2": b, "score": n % 5} for n, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    found = [values(one) for one in scored("pairs", folder, pairs)]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def embedded(text: str) -> Array:
        hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].detach().numpy()
        return np.asarray(hidden.mean(0) / np.linalg.norm(hidden.mean(0)))

    config = TaskConfig("mine", TaskKind.pairs, str(tmp_path / "data.jsonl"), text="sentence1", pair="sentence2")
    outputs = np.stack([embedded(str(text)) for text in load_task(config).texts])
    expected = figures("pairs", config, outputs, folder)
    assert set(expected) == {"spearman", "pearson"}
    assert found == [pytest.approx(expected, abs=1e-5)] * 2


def test_retrieval_is_scored_by_embeddings(scored: Scored, tmp_path: Path, fast_cli: Cli) -> None:
    """The query of each row is its positive in other words, so that the right document is the first one."""
    folder = word_model(tmp_path / "model")
    documents = list(dict.fromkeys(texts(20)))
    rows = [{"query": f"{text} the", "positive": text} for text in documents]
    one, other = (values(each) for each in scored("retrieval", folder, rows, "task.k=3"))
    assert one == other
    assert set(one) == {"nDCG@10", "MRR@10", "recall@3"}
    assert 0.5 < one["MRR@10"] <= one["nDCG@10"] <= 1
    table = table_in(tmp_path / "results", "accuracy").read_text()
    assert "other metrics" in table
    assert f"recall@3 {one['recall@3']:.6f}, +0.00000 [+0.00000, +0.00000]" in table


def test_candidates_are_ranked_by_the_score_of_a_cross_encoder(scored: Scored, tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model", head="classification", **ONE)
    queries, candidates = texts(4), texts(20, seed=1)
    rows = [
        {"query": query, "candidate": candidates[5 * n : 5 * n + 5], "relevance": [0, 1, 0, 2, 0]}
        for n, query in enumerate(queries)
    ]
    found = [values(one) for one in scored("reranking", folder, rows)]
    pairs = [(row["query"], text) for row in rows for text in row["candidate"]]
    outputs = np.stack(logits(folder, "SequenceClassification", pairs))
    config = TaskConfig("mine", TaskKind.reranking, str(tmp_path / "data.jsonl"), text="query", pair="candidate",
                        score="relevance")  # fmt: skip
    expected = figures("reranking", config, outputs, folder)
    assert set(expected) == {"nDCG@10", "MRR@10", "MAP"}
    assert found == [pytest.approx(expected)] * 2


def test_a_regression_head_is_scored_by_correlation(scored: Scored, tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model", head="classification", **ONE)
    examples = list(dict.fromkeys(texts(20)))
    outputs = np.stack(logits(folder, "SequenceClassification", examples))
    noise = np.random.default_rng(0).normal(size=len(examples)) * outputs.std()
    rows = [
        {"text": text, "score": float(value[0]) + more}
        for text, value, more in zip(examples, outputs, noise, strict=True)
    ]
    found = [values(one) for one in scored("regression", folder, rows)]
    expected = figures(
        "regression", TaskConfig("mine", TaskKind.regression, str(tmp_path / "data.jsonl")), outputs, folder
    )
    assert 0.2 < expected["spearman"] < 1
    assert found == [pytest.approx(expected, abs=1e-5)] * 2


def test_several_labels_are_scored_by_f1(scored: Scored, tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model", head="classification", **SEVERAL)
    examples = list(dict.fromkeys(texts(20)))
    outputs = np.stack(logits(folder, "SequenceClassification", examples))
    given = [[name for name, value in zip("xyz", row, strict=True) if value > 0] for row in outputs]
    given[:5] = [["x"], [], ["y", "z"], ["z"], ["x", "y", "z"]]
    rows = [{"text": text, "labels": names} for text, names in zip(examples, given, strict=True)]
    found = [values(one) for one in scored("multi_label", folder, rows)]
    config = TaskConfig("mine", TaskKind.multi_label, str(tmp_path / "data.jsonl"), label="labels")
    expected = figures("multi_label", config, outputs, folder)
    assert 0.3 < expected["F1 micro"] < 1
    assert found == [pytest.approx(expected)] * 2


def test_tags_of_words_are_scored_by_the_first_token_of_each(scored: Scored, tmp_path: Path) -> None:
    from seqeval.metrics import f1_score

    folder = word_model(tmp_path / "model", head="tokens", **TOKENS)
    sentences = [text.split() for text in texts(12)]
    sentences[0] = ["cat-dog", "the", "red-big-cat", "sat"]  # tokens cat - dog, the, red - big - cat, sat
    predicted = []
    for words, output in zip(sentences, logits(folder, "TokenClassification", map(" ".join, sentences)), strict=True):
        sizes = [2 * word.count("-") + 1 for word in words]
        first = 1 + np.cumsum([0, *sizes[:-1]])
        predicted.append([TAGS[tag] for tag in output[first].argmax(-1)])
    generator = np.random.default_rng(0)
    gold = [[tag if generator.random() < 0.8 else "B-PER" for tag in tags] for tags in predicted]
    rows = [{"tokens": words, "tags": tags} for words, tags in zip(sentences, gold, strict=True)]
    right = np.mean([a == b for own, tags in zip(predicted, gold, strict=True) for a, b in zip(own, tags, strict=True)])
    found = [values(one) for one in scored("token_classification", folder, rows)]
    assert found == [pytest.approx({"F1": f1_score(gold, predicted), "accuracy": right})] * 2
    assert 0.3 < found[0]["F1"] < 1


def test_the_first_tokens_of_words_are_found_and_cut_words_have_none(tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model", head="tokens", **TOKENS)
    features = tokenize_words(folder, [["cat-dog", "the", "red"], ["a", "", " mat"]], 6)
    assert features.first_tokens().tolist() == [[1, 4, -1], [1, -1, 2]]
    assert (features.cut, [len(row) for row in features.ids]) == (1, [6, 4])


@pytest.mark.parametrize(
    ("head", "config", "task", "row", "says"),
    [
        ("classification", ONE, "multi_label", {"text": "a", "labels": ["x"]}, "use task=regression or task=reranking"),
        ("classification", SEVERAL, "regression", {"text": "a", "score": 1}, "needs a head with one output"),
        ("classification", SEVERAL, "token_classification", {"tokens": ["a"], "tags": ["x"]}, "no head for tokens"),
        ("tokens", TOKENS, "multi_label", {"text": "a", "labels": ["O"]}, "has a head for tokens: use task=token_"),
        ("classification", SEVERAL, "multi_label", {"text": "a", "labels": ["w"]}, "data.jsonl, line 1: the label 'w'"),
        ("tokens", TOKENS, "token_classification", {"tokens": ["a"], "tags": ["B-X"]}, "line 1: the label 'B-X'"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_for_the_task_is_refused(
    head: str, config: dict[str, Any], task: str, row: dict[str, Any], says: str, tmp_path: Path, fast_cli: Cli
) -> None:
    folder = word_model(tmp_path / "model", head=head, **config)
    done = fast_cli("backend=ort", f"model.path={folder}", "suite=accuracy", f"task={task}",
                    f"task.path={written(tmp_path, [row])}", "batch=[2]", "sequence=[8]", "device=cpu")  # fmt: skip
    assert done.returncode == 2
    assert says in done.stderr
