"""Labels of a classification checkpoint, and the map from labels of a data set to outputs of the checkpoint.

A data set gives labels as names of the checkpoint or as places, the numbers of its outputs from 0. All labels of a data
set are read in the same way. Otherwise, for a checkpoint with the names 1 to 5, the label 0 would be a place and the
label 1 a name.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from backends.model.checkpoint_files import read_config
from backends.model_output import architecture_of

READINGS = ("auto", "names", "places")
"""Ways to read the labels of a data set; auto selects the one that fits all labels."""


HEAD_TASKS = ("sequence_classification", "multi_label", "regression", "reranking", "token_classification")
"""Kinds of tasks that judge the outputs of a classification head."""

HEADLESS = ("Model", "ForMaskedLM", "ForPreTraining", "ForQuestionAnswering")
"""Ends of the names of classes of transformers without a classification head."""


class UnknownLabel(ValueError):
    """Labels that do not fit the checkpoint. `label` is the first wrong label; empty if no single label is wrong."""

    def __init__(self, message: str, label: str = "") -> None:
        super().__init__(message)
        self.label = label


def label_names(folder: Path) -> dict[int, str]:
    """Return the label names of the checkpoint by place; LABEL_0 and LABEL_1 if config.json gives none."""
    return label_names_of_config(read_config(folder))


def label_names_of_config(config: Mapping[str, object]) -> dict[int, str]:
    """Return the label names in the contents of a config.json, by place.

    The numbers in id2label may have gaps: the smallest one is the first output. `check_output` in heads.py checks that
    the head has as many outputs as there are names.

    Raises:
        ValueError: id2label is not an object of different numbers and their names, or num_labels is no number.
    """
    id2label = config.get("id2label")
    if not id2label:
        count = config.get("num_labels", 2)
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"num_labels in config.json is {count!r}; it must be the number of labels")
        return {place: f"LABEL_{place}" for place in range(count)}
    try:
        if not isinstance(id2label, Mapping):
            raise TypeError("id2label is not an object")
        names = {int(number): str(name) for number, name in id2label.items()}
    except (TypeError, ValueError):
        raise ValueError(
            'id2label in config.json must be an object of numbers and names, e.g. {"0": "negative", "1": "positive"}'
        ) from None
    if len(names) < len(id2label):
        raise ValueError(
            f"id2label in config.json has a number twice (of {_first_values(id2label)}); give each output its own"
        )
    return {place: names[number] for place, number in enumerate(sorted(names))}


def head_fault(config: Mapping[str, object], task: str) -> str:
    """Return the reason why the head of a checkpoint is not for a task; empty if it is, or if the task uses none.

    Args:
        task: name of a kind of task.
    """
    architecture, problem_type = architecture_of(config), config.get("problem_type")
    per_token = architecture.endswith("ForTokenClassification")
    count, several = len(label_names_of_config(config)), problem_type == "multi_label_classification"
    scores = count == 1 or problem_type == "regression"
    if task not in HEAD_TASKS:
        return ""
    subject = f"this checkpoint (architectures in config.json: {architecture[:60] or 'none'})"
    if architecture.endswith(HEADLESS):
        other = ", or use task=question_answering" if architecture.endswith("ForQuestionAnswering") else ""
        return f"{subject} has no classification head, which task={task} needs; give a fine-tuned checkpoint{other}"
    if per_token != (task == "token_classification"):
        suited = (
            "a head for tokens: use task=token_classification" if per_token else "no head for tokens: use another task"
        )
        return f"{subject} has {suited}, or give another checkpoint"
    if task in ("regression", "reranking"):
        advice = "multi_label" if several else "sequence_classification"
        return "" if count == 1 else f"task={task} needs a head with one output; this has {count}: use task={advice}"
    if task == "sequence_classification" and several:
        return (
            "this checkpoint gives several labels to a text (problem_type is multi_label_classification); "
            "task=sequence_classification needs a head that selects one label: use task=multi_label"
        )
    if task != "token_classification" and scores:
        return (
            "this checkpoint's head gives scores and no labels (one output, as cross-encoders have, or problem_type "
            f"regression); task={task} needs a head with several labels: use task=regression or task=reranking"
        )
    if task == "multi_label" and problem_type == "single_label_classification":
        return "this checkpoint selects one label for a text (problem_type in config.json); use sequence_classification"
    return ""


def label_places(names: Mapping[int, str], labels: Sequence[str], reading: str = "auto") -> list[int]:
    """Return the place of each label of a data set in the outputs of a checkpoint.

    Names are compared case-insensitively, and numbers by value: 1.0 is 1.

    Args:
        names: label names of the checkpoint by place.
        labels: all labels of the data set; duplicates are allowed.
        reading: one of `READINGS`.

    Raises:
        UnknownLabel: the checkpoint does not have a label; or some labels are names and others are places; or all
            labels can be read both ways and the results differ.
    """
    distinct = list(dict.fromkeys(labels))
    if reading != "places" and (shared := [label for label in distinct if list(names.values()).count(label) > 1]):
        raise UnknownLabel(
            f"config.json gives the name {shared[0][:40]!r} to several outputs (id2label); "
            "give each output its own name, or give labels as numbers of outputs with task.labels=places"
        )
    by_name, by_place = _by_name(names, distinct), _by_place(names, distinct)
    places = {"names": by_name, "places": by_place}.get(reading) if reading != "auto" else _fitting(by_name, by_place)
    wrong = [label for label in distinct if places is None or label not in places]
    if places is None:
        raise UnknownLabel(
            f"the labels {_first_values(distinct)} are names of the checkpoint ({_first_values(names.values())}) and "
            "also numbers of its outputs, counted from 0; set task.labels=names or task.labels=places"
        )
    if wrong:
        mixed = reading == "auto" and wrong[0] in {**by_name, **by_place}
        message = _mixed(names, by_name, by_place) if mixed else _unknown(names, wrong[0], reading)
        raise UnknownLabel(message, "" if mixed else wrong[0])
    return [places[label] for label in labels]


def _fitting(by_name: Mapping[str, int], by_place: Mapping[str, int]) -> Mapping[str, int] | None:
    """Return the map that contains every label of both maps.

    Return None if both maps do and they differ. If neither does, return only the labels with the same place in both.
    """
    every = {**by_name, **by_place}
    complete = [places for places in (by_name, by_place) if len(places) == len(every)]
    if not complete:
        return {label: place for label, place in by_name.items() if by_place.get(label) == place}
    return complete[0] if complete[0] == complete[-1] else None


def _by_name(names: Mapping[int, str], labels: Sequence[str]) -> dict[str, int]:
    exact = {name: place for place, name in names.items()}
    counts = Counter(_normalized(name) for name in names.values())
    folded = {_normalized(name): place for place, name in names.items() if counts[_normalized(name)] == 1}
    places = {label: exact.get(label, folded.get(_normalized(label))) for label in labels}
    return {label: place for label, place in places.items() if place is not None}


def _by_place(names: Mapping[int, str], labels: Sequence[str]) -> dict[str, int]:
    numbers = {label: _number(label) for label in labels}
    return {label: number for label, number in numbers.items() if number is not None and number in names}


def _normalized(name: str) -> str:
    """Return a name in a form that is equal for spellings which differ in case, spaces or Unicode composition."""
    number = _number(name.strip())
    return unicodedata.normalize("NFC", name.strip()).casefold() if number is None else str(number)


def _number(label: str) -> int | None:
    """Return the integer that a label spells, also with a fraction of 0; None for any other label."""
    return int(label.partition(".")[0]) if re.fullmatch(r"[+-]?[0-9]{1,18}(\.0*)?", label) else None


def _mixed(names: Mapping[int, str], by_name: Mapping[str, int], by_place: Mapping[str, int]) -> str:
    name = next(label for label in by_name if label not in by_place)
    place = next(label for label in by_place if label not in by_name)
    return (
        f"some labels are names of the checkpoint ({name}) and others are numbers of its outputs ({place}); "
        f"give all labels as names ({_first_values(names.values())}) or all as numbers from 0 to {max(names)}"
    )


def _unknown(names: Mapping[int, str], label: str, reading: str) -> str:
    if reading == "places":
        return f"the label {label[:80]!r} is not a number from 0 to {max(names)}"
    allowed = "" if reading == "names" else f", nor a number from 0 to {max(names)}"
    return f"the label {label[:80]!r} is not one of the checkpoint's labels: {_first_values(names.values())}{allowed}"


def _first_values(values: Iterable[object]) -> str:
    """Return the first 12 values in one line, for a message."""
    listed = [str(value)[:40] for value in values]
    return ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "")
