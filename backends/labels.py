"""The labels of a classification checkpoint, and the places that the labels of a data set have in its outputs.

A data set gives labels by the checkpoint's names or by their places (numbers from 0 on). Which of the two is decided
over all of its labels at once: a checkpoint whose names are the numbers 1 to 5 would otherwise read the label 0 as a
place and the label 1 as a name.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.checkpoint_files import read_config

READINGS = ("auto", "names", "places")
"""How labels of a data set can be read; auto takes the one that fits all of them."""


class UnknownLabel(ValueError):
    """Labels that do not fit the checkpoint; `label` is the first one that does not, or empty where no single one is
    to blame."""

    def __init__(self, message: str, label: str = "") -> None:
        super().__init__(message)
        self.label = label


def label_names(folder: Path) -> dict[int, str]:
    """The checkpoint's labels by their place in its outputs, as config.json has them; two where it says nothing."""
    return names_in(read_config(folder))


def names_in(config: Mapping[str, Any]) -> dict[int, str]:
    """The same of a config.json that was read.

    Raises:
        ValueError: id2label is no object with a name for each place from 0 on.
    """
    named = config.get("id2label")
    if not named:
        count = config.get("num_labels", 2)
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"num_labels is {count!r} in config.json and must be the number of labels")
        return {place: f"LABEL_{place}" for place in range(count)}
    try:
        found = {int(place): str(name) for place, name in named.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            'id2label in config.json must be an object of places and names, e.g. {"0": "negative", "1": "positive"}'
        ) from None
    if set(found) != set(range(len(named))):
        raise ValueError(
            f"id2label in config.json names the outputs {_some(sorted(found))}; it must name all of them, from 0 on"
        )
    return found


def not_a_choice(config: Mapping[str, Any]) -> str:
    """Why the head of a checkpoint does not choose one label of several; empty if it does."""
    kind, count = config.get("problem_type"), len(names_in(config))
    if kind == "multi_label_classification":
        return (
            "this checkpoint gives several labels to a text (problem_type is multi_label_classification); "
            "task=sequence_classification judges heads that choose one label"
        )
    if count == 1 or kind == "regression":
        return (
            "this checkpoint's head gives scores and no labels (one output, as of cross-encoders, or problem_type "
            "regression); task=sequence_classification judges heads that choose one label of several"
        )
    return ""


def label_places(names: Mapping[int, str], labels: Sequence[str], reading: str = "auto") -> list[int]:
    """The place in a checkpoint's outputs of each label of a data set.

    Names are compared without regard to case, and numbers by value: 1.0 is 1.

    Args:
        names: of the checkpoint by place.
        labels: all labels of the data set, each as often as it occurs or once.
        reading: one of `READINGS`.

    Raises:
        UnknownLabel: a label is not the checkpoint's, some are names and others places, or all can be read as either
            and the two differ.
    """
    distinct = list(dict.fromkeys(labels))
    if reading != "places" and (shared := [label for label in distinct if list(names.values()).count(label) > 1]):
        raise UnknownLabel(
            f"config.json gives the name {shared[0][:40]!r} to several outputs (id2label); "
            "give each a name of its own, or labels as numbers of outputs with task.labels=places"
        )
    by_name, by_place = _by_name(names, distinct), _by_place(names, distinct)
    found = {"names": by_name, "places": by_place}.get(reading) if reading != "auto" else _fitting(by_name, by_place)
    wrong = [label for label in distinct if found is None or label not in found]
    if found is None:
        raise UnknownLabel(
            f"the labels {_some(distinct)} are names of the checkpoint's ({_some(names.values())}) and also numbers of "
            "its outputs, counted from 0; say which with task.labels=names or task.labels=places"
        )
    if wrong:
        mixed = reading == "auto" and wrong[0] in {**by_name, **by_place}
        message = _mixed(names, by_name, by_place) if mixed else _unknown(names, wrong[0], reading)
        raise UnknownLabel(message, "" if mixed else wrong[0])
    return [found[label] for label in labels]


def _fitting(by_name: Mapping[str, int], by_place: Mapping[str, int]) -> Mapping[str, int] | None:
    """The reading that has every label that any has; of two such readings that differ none."""
    every = {**by_name, **by_place}
    whole = [found for found in (by_name, by_place) if len(found) == len(every)]
    if not whole:
        return {label: place for label, place in by_name.items() if by_place.get(label) == place}
    return whole[0] if whole[0] == whole[-1] else None


def _by_name(names: Mapping[int, str], labels: Sequence[str]) -> dict[str, int]:
    exact = {name: place for place, name in names.items()}
    counts = Counter(_plain(name) for name in names.values())
    folded = {_plain(name): place for place, name in names.items() if counts[_plain(name)] == 1}
    found = {label: exact.get(label, folded.get(_plain(label))) for label in labels}
    return {label: place for label, place in found.items() if place is not None}


def _by_place(names: Mapping[int, str], labels: Sequence[str]) -> dict[str, int]:
    numbers = {label: _number(label) for label in labels}
    return {label: number for label, number in numbers.items() if number is not None and number in names}


def _plain(name: str) -> str:
    """A name without what two spellings of it may differ in."""
    number = _number(name.strip())
    return unicodedata.normalize("NFC", name.strip()).casefold() if number is None else str(number)


def _number(label: str) -> int | None:
    """A whole number written as one, also with a fraction of 0; None for any other label."""
    return int(label.partition(".")[0]) if re.fullmatch(r"[+-]?[0-9]{1,18}(\.0*)?", label) else None


def _mixed(names: Mapping[int, str], by_name: Mapping[str, int], by_place: Mapping[str, int]) -> str:
    one = next(label for label in by_name if label not in by_place)
    other = next(label for label in by_place if label not in by_name)
    return (
        f"some labels are the checkpoint's names ({one}) and others numbers of its outputs ({other}); "
        f"give all of them as names ({_some(names.values())}) or all as numbers from 0 to {max(names)}"
    )


def _unknown(names: Mapping[int, str], label: str, reading: str) -> str:
    if reading == "places":
        return f"the label {label[:80]!r} is not a number from 0 to {max(names)}"
    allowed = "" if reading == "names" else f", nor a number from 0 to {max(names)}"
    return f"the label {label[:80]!r} is not one of the checkpoint's: {_some(names.values())}{allowed}"


def _some(values: Any) -> str:
    """The first few values, for a message."""
    listed = [str(value)[:40] for value in values]
    return ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "")
