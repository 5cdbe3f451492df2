"""Labels of a data set: read as names of the checkpoint's labels or as indices of its outputs, one of the two for
the whole data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from backends.model.labels import UnknownLabel, head_fault, label_names_of_config, label_places
from suites.schema.config import TaskConfig
from suites.schema.enums import LabelReading, Metric, TaskKind
from suites.schema.refusals import Refused
from suites.tasks.task import load_task

WORDS = {0: "good", 1: "bad", 2: "neither"}
STARS = {place: str(place + 1) for place in range(5)}
PLAIN = {0: "LABEL_0", 1: "LABEL_1"}


@pytest.mark.parametrize(
    ("names", "labels", "places"),
    [
        (WORDS, ["Bad", "good", "NEITHER"], [1, 0, 2]),
        (WORDS, ["1", "0", "2", "1"], [1, 0, 2, 1]),
        (WORDS, ["1.0", "0.0"], [1, 0]),
        (PLAIN, ["LABEL_1", "label_0"], [1, 0]),
        (PLAIN, ["0", "1"], [0, 1]),
        (STARS, ["1", "5", "3"], [0, 4, 2]),
        (STARS, ["1.0", "5.0"], [0, 4]),
        (STARS, ["0", "1", "4"], [0, 1, 4]),
        ({0: "0", 1: "1"}, ["1", "0", "1.0"], [1, 0, 1]),
        ({0: "1", 1: "0"}, ["LABEL"], None),
        ({0: "A", 1: "a"}, ["a", "A"], [1, 0]),
        ({0: "ne\u0301gatif", 1: "positif"}, ["n\u00e9gatif"], [0]),
        ({0: "-1", 1: "1"}, ["-1", "1"], [0, 1]),
    ],
)
def test_every_label_is_read_in_the_same_way(
    names: dict[int, str], labels: list[str], places: list[int] | None
) -> None:
    if places is None:
        with pytest.raises(UnknownLabel):
            label_places(names, labels)
    else:
        assert label_places(names, labels) == places


@pytest.mark.parametrize(
    ("names", "labels", "says", "label"),
    [
        (
            WORDS,
            ["bad", "awful"],
            "the label 'awful' is not one of the checkpoint's labels: good, bad, neither",
            "awful",
        ),
        (
            WORDS,
            ["1", "3"],
            "the label '3' is not one of the checkpoint's labels: good, bad, neither, nor a number from 0",
            "3",
        ),
        (WORDS, ["1", "0.5"], "the label '0.5' is not one", "0.5"),
        (WORDS, ["1", "-1"], "the label '-1' is not one", "-1"),
        (
            WORDS,
            ["bad", "2"],
            r"some labels are names of the checkpoint (bad) and others are numbers of its outputs (2)",
            "",
        ),
        (STARS, ["0", "1", "5"], r"names of the checkpoint (5) and others are numbers of its outputs (0)", ""),
        (STARS, ["1", "2", "3"], "set task.labels=names or task.labels=places", ""),
        ({0: "1", 1: "0"}, ["0", "1"], "set task.labels=names", ""),
        ({0: "a", 1: "A"}, ["a", "b"], "the label 'b' is not one", "b"),
    ],
)
def test_labels_that_fit_neither_or_both_interpretations_are_refused(
    names: dict[int, str], labels: list[str], says: str, label: str
) -> None:
    with pytest.raises(UnknownLabel, match=re.escape(says)) as refused:
        label_places(names, labels)
    assert not label or refused.value.label == label


def test_a_configured_interpretation_is_used() -> None:
    assert label_places(STARS, ["1", "2"], "names") == [0, 1]
    assert label_places(STARS, ["1", "2"], "places") == [1, 2]
    with pytest.raises(UnknownLabel, match="the label '5' is not a number from 0 to 4"):
        label_places(STARS, ["1", "5"], "places")
    with pytest.raises(UnknownLabel, match=r"the label '0' is not one of the checkpoint's labels: 1, 2, 3, 4, 5$"):
        label_places(STARS, ["1", "0"], "names")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"id2label": {"0": "LABEL_0"}}, "scores and no labels"),
        ({"num_labels": 1}, "scores and no labels"),
        ({"id2label": {"0": "x", "1": "y"}, "problem_type": "regression"}, "scores and no labels"),
        ({"id2label": {"0": "x", "1": "y"}, "problem_type": "multi_label_classification"}, "several labels to a text"),
        ({"id2label": {"0": "x", "1": "y"}, "problem_type": "single_label_classification"}, ""),
        ({"id2label": {"0": "x", "1": "y"}, "problem_type": None}, ""),
        ({}, ""),
    ],
)
def test_heads_without_a_choice_of_label_are_recognized(config: dict[str, Any], says: str) -> None:
    assert says in head_fault(config, "sequence_classification")
    assert bool(says) == bool(head_fault(config, "sequence_classification"))


TOKENS = {"architectures": ["BertForTokenClassification"], "id2label": {"0": "O", "1": "B-X"}}
SEVERAL = {"id2label": {"0": "x", "1": "y"}, "problem_type": "multi_label_classification"}


@pytest.mark.parametrize(
    ("config", "task", "says"),
    [
        ({"num_labels": 1}, "regression", ""),
        ({"num_labels": 1}, "reranking", ""),
        ({"num_labels": 3}, "regression", "needs a head with one output; this has 3: use task=sequence_classification"),
        (SEVERAL, "reranking", "task=reranking needs a head with one output; this has 2: use task=multi_label"),
        (SEVERAL, "multi_label", ""),
        ({"num_labels": 3}, "multi_label", ""),
        ({"num_labels": 1}, "multi_label", "use task=regression or task=reranking"),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, "multi_label", "selects one label"),
        (TOKENS, "token_classification", ""),
        ({"num_labels": 3}, "token_classification", "has no head for tokens: use another task, or"),
        (TOKENS, "sequence_classification", "has a head for tokens: use task=token_classification"),
        (TOKENS, "regression", "has a head for tokens: use task=token_classification"),
        (TOKENS, "stsb", ""),
        ({"architectures": ["BertModel"]}, "stsb", ""),
        ({"architectures": ["BertModel"]}, "reranking", "(architectures in config.json: BertModel) has no "
         "classification head, which task=reranking needs; give a fine-tuned checkpoint"),
        ({"architectures": ["BertModel"]}, "token_classification", "BertModel) has no classification head"),
        ({"architectures": ["BertForMaskedLM"], "num_labels": 1}, "regression", "has no classification head"),
        ({"architectures": ["BertForQuestionAnswering"]}, "sequence_classification", "which "
         "task=sequence_classification needs; give a fine-tuned checkpoint, or use task=question_answering"),
    ],
)  # fmt: skip
def test_a_head_is_for_a_task(config: dict[str, Any], task: str, says: str) -> None:
    assert says in head_fault(config, task)
    assert bool(says) == bool(head_fault(config, task))


@pytest.mark.parametrize(
    "config",
    [
        {"id2label": ["a", "b"]},
        {"id2label": {"first": "a"}},
        {"id2label": {"1": "a", "01": "b"}},
        {"num_labels": "two"},
    ],
)
def test_placeholder_label_names_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        label_names_of_config(config)


@pytest.mark.parametrize("numbers", [("0", "1", "2"), ("2", "0", "1"), ("1", "2", "3"), ("10", "4", "7")])
def test_the_numbers_of_labels_may_have_gaps_and_any_order(numbers: tuple[str, ...]) -> None:
    names = dict(zip(numbers, "abc", strict=True))
    ordered = [names[number] for number in sorted(numbers, key=int)]
    assert label_names_of_config({"id2label": names}) == dict(enumerate(ordered))


def test_a_name_of_several_outputs_is_refused() -> None:
    names = {0: "a", 1: "a", 2: "b"}
    for reading in ("auto", "names"):
        with pytest.raises(UnknownLabel, match="gives the name 'a' to several outputs"):
            label_places(names, ["b", "a"], reading)
    assert label_places(names, ["1", "2"], "places") == [1, 2]
    assert label_places(names, ["b", "b"]) == [2, 2]


def task_of(folder: Path, rows: str, **changes: Any) -> TaskConfig:
    (folder / "texts.csv").write_text(f"text,label\n{rows}")
    return TaskConfig("mine", TaskKind.sequence_classification, str(folder / "texts.csv"), **changes)


def test_the_first_row_with_an_unknown_label_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"texts\.csv, line 3: the label 'awful' is not one of the checkpoint's labels"):
        load_task(task_of(tmp_path, "a,good\nb,awful\nc,bad\n"), WORDS)
    with pytest.raises(Refused, match=r"texts\.csv: some labels are names of the checkpoint \(good\)"):
        load_task(task_of(tmp_path, "a,good\nb,1\n"), WORDS)


def test_an_interpretation_is_part_of_the_targets_only_if_it_was_configured(tmp_path: Path) -> None:
    assert "reading" not in load_task(task_of(tmp_path, "a,0\nb,4\n"), STARS).targets
    given = load_task(task_of(tmp_path, "a,1\nb,2\n", labels=LabelReading.places), STARS)
    assert (given.targets["reading"], given.reading) == ("places", "places")


def test_a_metric_that_is_undefined_for_one_label_is_refused(tmp_path: Path) -> None:
    rows = "a,good\nb,good\n"
    assert load_task(task_of(tmp_path, rows), WORDS).labels == ["good"]
    for metric in (Metric.f1, Metric.matthews):
        with pytest.raises(Refused, match=f"task.metric={metric.name} needs several labels"):
            load_task(task_of(tmp_path, rows, metric=metric), WORDS)
