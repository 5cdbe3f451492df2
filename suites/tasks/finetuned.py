"""Tasks for a user's own fine-tuned checkpoint: labels for texts or pairs of them, and answers out of contexts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.labels import UnknownLabel, label_places
from suites.checks import Refused, decoded, is_file, read_bytes
from suites.choices import LabelReading, Metric
from suites.config import TaskConfig
from suites.tasks.rows import from_hub, from_table, texts_of


def sequence_classification(
    config: TaskConfig, names: Mapping[int, str] | None
) -> tuple[list[list[str]], dict[str, Any]]:
    """Texts of one part or two, and targets: the label of each text, how labels are read (where that was given) and
    the metric.

    Args:
        names: the checkpoint's labels by their places, where they are known.

    Raises:
        Refused: a column is missing, a text is empty, the labels are not the checkpoint's, or there are no texts.
    """
    if not config.path and not config.hub:
        raise Refused("task=sequence_classification needs task.path=FILE, or task.hub= with .subset, .text and .label")
    for key in ("text", "label"):
        if not getattr(config, key):
            raise Refused(f"task.{key}= names no column; give the name of one, e.g. task.{key}={key}")
    columns = [column for column in (config.text, config.pair, config.label) if column]
    if config.pair == config.text:
        raise Refused(f"task.text and task.pair are both {config.text}; name two columns, or leave out task.pair")
    rows = from_table(Path(config.path), columns) if config.path else from_hub(config.hub, config.split, config.subset)
    found = list(texts_of(rows, columns))
    if not found:
        raise Refused(f"{config.path or config.hub} holds no texts")
    labels = [row[config.label] for _, row in found]
    if names:
        _check_labels(config, names, labels, [place for place, _ in found])
    if config.metric is not Metric.accuracy and len(set(labels)) == 1:
        raise Refused(
            f"every text of {config.path or config.hub} has the label {labels[0]!r}, of which "
            f"task.metric={config.metric.name} says nothing; use task.metric=accuracy or data with several labels"
        )
    texts = [[row[column] for column in columns[:-1]] for _, row in found]
    reading = {} if config.labels is LabelReading.auto else {"reading": config.labels.name}
    return texts, {"labels": labels, "metric": config.metric.name, **reading}


def _check_labels(config: TaskConfig, names: Mapping[int, str], labels: Sequence[str], places: Sequence[str]) -> None:
    try:
        label_places(names, labels, config.labels.name)
    except UnknownLabel as error:
        where = places[labels.index(error.label)] if error.label else config.path or config.hub
        raise Refused(f"{where}: {error}") from None


def question_answering(config: TaskConfig) -> tuple[list[list[str]], dict[str, Any]]:
    """Questions with their contexts, and targets: contexts and answers (by question, those that are right).

    Raises:
        Refused: the file is not in SQuAD's form, a text is empty, or nothing is there.
    """
    rows = _from_squad(Path(config.path)) if config.path else from_hub(config.hub, config.split, config.subset)
    texts, answers = [], []
    for place, row in rows:
        ((_, parts),) = texts_of([(place, row)], ("question", "context"))
        known = row.get("answers")
        if not isinstance(known, Mapping) or not isinstance(known.get("text"), Sequence):
            raise Refused(f"{place}: there is no column answers with a list text, as SQuAD has it")
        right = [str(text) for text in known["text"]]
        if not right:
            raise Refused(f"{place}: there is no answer; questions without one (SQuAD 2) are not judged here")
        texts.append([parts["question"], parts["context"]])
        answers.append(right)
    if not texts:
        raise Refused(f"{config.path or config.hub} holds no questions")
    return texts, {"contexts": [context for _, context in texts], "answers": answers}


def _from_squad(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """Rows as the hub has them, of a file as its authors publish it (dev-v1.1.json)."""
    if not is_file(path):
        raise Refused(f"task.path={path} is not a file; give one in SQuAD's form, e.g. dev-v1.1.json")
    text = decoded(f"task.path={path}", read_bytes("task.path", path))
    try:
        for article in json.loads(text)["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = {"text": [answer["text"] for answer in question["answers"]]}
                    asked = {"question": question["question"], "context": paragraph["context"], "answers": answers}
                    yield f"{path}, question {question['id']}", asked
    except RecursionError:
        raise Refused(f"{path} is nested too deeply to be in SQuAD's form") from None
    except ValueError as error:
        raise Refused(f"{path} is not JSON: {error}") from None
    except (KeyError, TypeError) as error:
        raise Refused(f"{path} is not in SQuAD's form: {type(error).__name__} {error}") from None
