"""Tasks of fine-tuned checkpoints: their files, their heads on hidden states, and their answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY_MODELS, Cli, json_of

from backends.base import Shape, Unavailable
from backends.cache import ArtifactCache
from backends.inputs.batches import InputSource
from backends.inputs.lengths import Lengths
from backends.inputs.task_batches import TaskTexts, prepare_task_batches
from backends.inputs.tokenized import NO_OFFSETS, tokenize_texts
from backends.model.identity import identity_of
from backends.model_output import Output
from suites.records.results_folder import read_records
from suites.schema.config import TaskConfig
from suites.schema.enums import TaskKind
from suites.schema.refusals import Refused
from suites.tasks.spans import answers
from suites.tasks.task import load_task

WORDS = ("the", "cat", "sat", "on", "mat", "where", "is", "who", "it", "dog", "a", "red", "was", "big")
LABELS = {0: "good", 1: "bad", 2: "neither"}
Checkpoint = Callable[..., Path]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Return the folder of a tiny checkpoint of a family. It has random weights that affect the outputs, and a word
    tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        AutoConfig,
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    def make(head: str, family: str = "bert") -> Path:
        folder = tmp_path_factory.mktemp(f"{family}-{head}")
        kinds = {"classification": AutoModelForSequenceClassification, "answers": AutoModelForQuestionAnswering}
        architecture = dict(TINY_MODELS[family])
        labels = {"id2label": LABELS} if head == "classification" else {}
        config = AutoConfig.for_model(architecture.pop("model_type"), **architecture, **labels)
        torch.manual_seed(0)
        model = kinds[head].from_config(config)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(folder)
        vocabulary = {word: place for place, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        read = ["input_ids", "attention_mask", "token_type_ids"]
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=read, **names).save_pretrained(folder)
        return folder

    return make


def ids(batch: int, length: int) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "input_ids": generator.integers(4, 18, (batch, length)).astype(np.int32),
        "attention_mask": np.ones((batch, length), np.int32),
    }


def test_pairs_are_cut_and_counted_and_have_different_token_types(checkpoint: Checkpoint) -> None:
    features = tokenize_texts(checkpoint("classification"), [["the cat", "sat"], ["a " * 30, "dog"]], 12)
    assert features.cut == 1
    assert [len(row) for row in features.ids] == [6, 12]
    assert features.ids[0] == [2, 4, 5, 3, 6, 3]
    assert features.ids[1][-2:] == [13, 3]  # the longer part is cut, the other is complete
    feeds = features.feeds([0], Shape(1, 8), ("input_ids", "attention_mask", "token_type_ids"))
    assert feeds["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 0, 0]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]


def test_a_long_context_is_read_in_overlapping_windows(checkpoint: Checkpoint) -> None:
    words = [WORDS[place % len(WORDS)] for place in range(20)]
    context = " ".join(words)
    features = tokenize_texts(checkpoint("answers"), [["who", context], ["where", "the mat"]], 12, windows=True)
    assert list(features.texts) == [0] * (len(features.texts) - 1) + [1]
    seen = [[context[a:b] for a, b in places if (a, b) != NO_OFFSETS] for places in features.offsets[:-1]]
    assert all(len(row) <= 12 for row in features.ids)
    assert seen[0][-4:] == seen[1][:4]
    assert {word for row in seen for word in row} == set(words)


def test_a_task_refuses_random_token_ids(tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache) -> None:
    origin = InputSource(*tiny("bert"), Lengths(), [], 0, "cpu", shared_cache)
    with pytest.raises(Unavailable, match=r"add tokenizer\.json to its folder"):
        prepare_task_batches(origin, (Shape(2, 16),), TaskTexts(["one"]))
    made = prepare_task_batches(origin, (Shape(2, 16),), TaskTexts(["one"], random=True))
    assert made.notes["tokens"] == "random"


def test_f1_is_the_mean_over_the_labels_that_occur(checkpoint: Checkpoint) -> None:
    from suites.tasks.scoring import score

    folder = checkpoint("classification")
    logits = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    predictions = logits.argmax(-1)
    names = [LABELS[place] if place != 2 else LABELS[0] for place in predictions.tolist()]
    assert len(set(names)) == 2
    scores = score("sequence_classification", {"labels": names, "metric": "f1"}, logits, {"reference": logits}, folder)
    targets = np.where(predictions == 2, 0, predictions)
    each = [
        2 * ((predictions == k) & (targets == k)).sum() / ((predictions == k).sum() + (targets == k).sum())
        for k in (0, 1)
    ]
    assert scores.figures is not None
    assert scores.figures.value == pytest.approx(np.mean(each))


def test_pairs_need_a_tokenizer(tiny: Callable[[str], tuple[Path, str]]) -> None:
    with pytest.raises(Unavailable, match=r"add tokenizer\.json to its folder"):
        tokenize_texts(tiny("bert")[0], [["one", "two"]], 16)


@pytest.mark.parametrize("longest", [12, 16, 30])
def test_a_long_question_is_cut_and_counted(longest: int, checkpoint: Checkpoint) -> None:
    """Otherwise the question leaves no room for its context, and tokenizers raise an error or panic."""
    asked = [["who " * 40, "the cat sat on the mat " * 5], ["who", "the mat"]]
    features = tokenize_texts(checkpoint("answers"), asked, longest, windows=True)
    assert features.cut == 1
    assert max(len(row) for row in features.ids) <= longest
    assert {*features.texts} == {0, 1}


def test_the_best_span_is_forward_within_the_context_and_over_all_windows() -> None:
    contexts = ["the cat sat", "a dog"]
    offsets = np.full((3, 6, 2), -1)
    offsets[0, 2:5] = [[0, 3], [4, 7], [8, 11]]
    offsets[1, 2:4] = [[4, 7], [8, 11]]
    offsets[2, 2:4] = [[0, 1], [2, 5]]
    scores = np.zeros((3, 2, 6))
    scores[0, 0, 0] = scores[0, 1, 1] = 99  # outside the context
    scores[0, 0, 4], scores[0, 1, 2] = 5, 5  # backwards
    scores[0, 0, 3], scores[0, 1, 4] = 2, 1
    scores[1, 0, 2], scores[1, 1, 3] = 9, 9
    scores[2, 0, 3], scores[2, 1, 3] = 1, 1
    assert answers(scores[[0, 2]].swapaxes(1, 2), np.array([0, 1]), offsets[[0, 2]], contexts) == ["sat", "dog"]
    assert answers(scores.swapaxes(1, 2), np.array([0, 0, 1]), offsets, contexts) == ["cat sat", "dog"]


def labelled(folder: Path, rows: str, **changes: Any) -> TaskConfig:
    (folder / "texts.csv").write_text(rows)
    named = {"name": "mine", "kind": TaskKind.sequence_classification, "path": str(folder / "texts.csv")}
    return TaskConfig(**{**named, **changes})


def test_a_table_of_texts_and_labels_is_a_task(tmp_path: Path) -> None:
    task = load_task(labelled(tmp_path, "text,label,other\nthe cat,good,x\nthe dog,bad,y\n"))
    assert (task.texts, task.labels, task.output) == ((["the cat"], ["the dog"]), ["bad", "good"], "logits")
    pairs = load_task(labelled(tmp_path, "one,two,label\nthe cat,sat,1\n", text="one", pair="two"))
    assert pairs.texts == (["the cat", "sat"],)


@pytest.mark.parametrize(
    ("rows", "changes", "says"),
    [
        ("text\nthe cat\n", {}, "there is no column label; its columns are text; name yours, e.g. task.label=COLUMN"),
        ("text,category\na,b\n", {}, "its columns are text, category; name yours, e.g. task.label=category"),
        (
            "idx,Review Text,category\n1,a,b\n",
            {},
            "there is no column text and no column label; its columns are idx, Review Text, category; "
            "name yours, e.g. 'task.text=Review Text' task.label=category",
        ),
        (
            "text,label\na,b\n",
            {"pair": "text2"},
            "no column text2; its columns are text, label; name yours, e.g. task.pair=",
        ),
        ("text,label\n ,good\n", {}, "texts.csv, line 2: text is empty"),
        ("text,label\n", {}, "has no texts"),
        ("text,label\n", {"path": ""}, "needs task.path=FILE"),
        ("text,label\n", {"path": "/nowhere/texts.csv"}, "task.path=/nowhere has no texts.csv"),
        ("text,label\n", {"path": "/"}, "task.path=/ is a folder; give a .csv, .tsv, .jsonl or .parquet file"),
    ],
)
def test_a_bad_table_is_refused(rows: str, changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        load_task(labelled(tmp_path, rows, **changes))
    assert says in str(refused.value)


def test_a_json_row_without_a_column_names_the_key(tmp_path: Path) -> None:
    config = labelled(tmp_path, "")
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "a", "category": "b"}\n')
    with pytest.raises(Refused, match=r"line 1: there is no column label; .*name yours, e\.g\. task\.label=category"):
        load_task(dataclasses.replace(config, path=str(file)))


def squad(path: Path, *asked: tuple[str, str, list[str]]) -> TaskConfig:
    paragraphs = [
        {"context": context, "qas": [{"id": f"q{n}", "question": question, "answers": [{"text": a} for a in right]}]}
        for n, (question, context, right) in enumerate(asked)
    ]
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return TaskConfig("mine", TaskKind.question_answering, str(path))


def test_questions_with_their_contexts_are_a_task(tmp_path: Path) -> None:
    task = load_task(squad(tmp_path / "dev.json", ("who sat", "the cat sat", ["the cat", "cat"])))
    assert task.texts == (["who sat", "the cat sat"],)
    assert task.targets == {"contexts": ["the cat sat"], "answers": [["the cat", "cat"]]}
    assert task.output == "spans"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", r"is not JSON \(Expecting .*\); give a file in the format of SQuAD 1\.1, e\.g\. dev-v1\.1\.json"),
        ('{"data": [{}]}', "not in SQuAD's format: it lacks the key 'paragraphs'; give a file"),
        ("[]", "is not in SQuAD's format; give a file"),
        ("question,context\n", "is not JSON .*; give a file"),
        ('{"data": []}', "has no questions; give a data set with at least one"),
    ],
)
def test_a_file_in_another_format_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text(text)
    with pytest.raises(Refused, match=says):
        load_task(TaskConfig("mine", TaskKind.question_answering, str(tmp_path / "dev.json")))


@pytest.mark.parametrize("answers", [{}, {"answers": ["the cat"]}, {"answers": {"start": [0]}}])
def test_hub_questions_without_answers_are_refused(answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"question": "who sat", "context": "the cat sat", **answers}
    monkeypatch.setattr("suites.tasks.finetuned.from_hub", lambda *asked: iter([("mine, test row 1", row)]))
    with pytest.raises(Refused, match="mine, test row 1: there is no column answers"):
        load_task(TaskConfig("mine", TaskKind.question_answering, path="", hub="mine"))


@pytest.mark.parametrize(("question", "right", "says"), [(" ", ["cat"], "question is empty"), ("who", [], "no answer")])
def test_a_question_without_text_or_answer_is_refused(
    question: str, right: list[str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=f"question q0: .*{says}"):
        load_task(squad(tmp_path / "dev.json", (question, "the cat sat", right)))


def test_a_classifier_is_scored_through_the_pipeline(checkpoint: Checkpoint, fast_cli: Cli, tmp_path: Path) -> None:
    folder = checkpoint("classification")
    rows = [f"{' '.join(WORDS[place % 7 : place % 7 + 5])},{LABELS[place % 3]}" for place in range(30)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    done = fast_cli("-m", "backend=torch_eager,ort", f"model.path={folder}", "model.name=mine", "suite=accuracy",
               "task=sequence_classification", f"task.path={tmp_path / 'texts.csv'}", "task.metric=f1",
               "batch=[3,8]", "sequence=[8,16]", "device=cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = list(read_records(tmp_path / "results", "accuracy"))
    assert len(records) == 2
    for record in records:
        assert json_of(record)["scores"]["metric"] == "f1"
        assert (json_of(record)["scores"]["difference"], json_of(record)["scores"]["changed"]) == (0, 0)
        assert json_of(record)["scores"]["cosine_min"] > 0.99999
    (tmp_path / "texts.csv").write_text("text,label\nthe cat,the cat\n")
    unknown = fast_cli("backend=ort", f"model.path={folder}", "model.name=mine", "suite=accuracy",
                  "task=sequence_classification", f"task.path={tmp_path / 'texts.csv'}",
                  "batch=[3]", "sequence=[8]", "device=cpu")  # fmt: skip
    assert unknown.returncode == 2
    assert "texts.csv, line 2: the label" in unknown.stderr
    assert "is not one of the checkpoint's labels: good, bad, neither" in unknown.stderr


def test_answers_are_scored_through_the_pipeline(checkpoint: Checkpoint, fast_cli: Cli, tmp_path: Path) -> None:
    folder, context = checkpoint("answers"), " ".join(WORDS * 3)
    config = squad(tmp_path / "dev.json", ("who sat", context, ["the cat"]), ("where", "on the mat", ["the mat"]))
    done = fast_cli("backend=ort", f"model.path={folder}", "model.name=mine", "suite=accuracy",
               "task=question_answering", f"task.path={config.path}", "batch=[2,3]", "sequence=[16,24]",
               "device=cpu", "--wide")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "accuracy")
    assert json_of(record)["scores"]["metric"] == "F1"
    assert json_of(record)["scores"]["exact_match"] == json_of(record)["scores"]["reference_exact_match"]
    assert (json_of(record)["scores"]["difference"], json_of(record)["scores"]["changed"]) == (0, 0)
    assert "F1 (exact match" in done.stdout


def test_scores_of_answers_are_computed_as_in_squad(checkpoint: Checkpoint, shared_cache: ArtifactCache) -> None:
    from suites.tasks.scoring import score

    folder = checkpoint("answers")
    texts = [["who", "the cat sat"], ["where", "a red dog was on it"]]
    made = prepare_task_batches(
        InputSource(folder, identity_of(folder), Lengths(), [], 0, "cpu", shared_cache, Output("spans")),
        (Shape(2, 16),),
        TaskTexts(texts),
    )
    inputs = dict(np.load(made.path))
    predictions = answers(inputs["reference"], inputs["text"], inputs["offsets"], [context for _, context in texts])
    targets = {"contexts": [context for _, context in texts], "answers": [[predictions[0]], ["nothing of it"]]}
    scores = score("question_answering", targets, inputs["reference"], inputs, folder)
    figures = scores.figures
    assert figures is not None
    assert (figures.exact_match, figures.reference_exact_match) == (0.5, 0.5)
    assert 0.5 <= figures.value < 1
    assert made.notes == {"tokens": "text", "texts": 2, "cut": 0}


def test_answers_are_whole_words_if_offsets_omit_letters() -> None:
    """A byte-level tokenizer after a split at blanks gives such offsets: all words but the first lack their first
    letter."""
    context = "Berlin is a big city"
    offsets = np.array([[[0, 6], [8, 9], [11, 11], [13, 15], [17, 20], [-1, -1]]])

    def span_text(begin: int, end: int) -> str:
        scores = np.zeros((1, 6, 2))
        scores[0, begin, 0], scores[0, end, 1] = 9, 9
        return answers(scores, np.array([0]), offsets, [context])[0]

    assert span_text(1, 1) == "is"
    assert span_text(2, 2) == "a"
    assert span_text(2, 4) == "a big city"
    assert span_text(0, 1) == "Berlin is"


def test_spans_of_covered_words_are_not_extended_at_the_edge_of_a_window() -> None:
    """A window may begin within a word. Letters in the previous window are not missing letters, and neither is a
    mark that the tokenizer omits."""
    context = "London, \u2603Paris"
    offsets = np.array([[[0, 3], [-1, -1]], [[3, 6], [9, 14]]])
    scores = np.zeros((2, 2, 2))
    scores[1, 0, 0], scores[1, 0, 1] = 9, 9
    assert answers(scores, np.array([0, 0]), offsets, [context]) == ["don"]
    scores[1] = [[0, 0], [9, 9]]
    assert answers(scores, np.array([0, 0]), offsets, [context]) == ["Paris"]
    assert answers(np.zeros((1, 2, 2)), np.array([0]), np.full((1, 2, 2), -1), [context]) == [""]
