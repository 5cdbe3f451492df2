"""Tasks for a fine-tuned checkpoint of the user: labels of texts or of pairs of texts, and answers from contexts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from backends.model.labels import UnknownLabel, label_places
from suites.schema.config import TaskConfig
from suites.schema.enums import LabelReading, Metric
from suites.schema.refusals import Refused, decoded, is_file, read_bytes
from suites.tasks.datasets import from_hub, from_table, text_columns


def sequence_classification(
    config: TaskConfig, names: Mapping[int, str] | None
) -> tuple[list[list[str]], dict[str, object]]:
    """Read texts of one part or two, and their targets.

    Args:
        names: the labels of the checkpoint by index; None if unknown.

    Returns:
        The parts of each text, and targets: `labels` (one for each text), `metric`, and `reading` (how labels are read,
        only if it was given).

    Raises:
        Refused: a column is missing, a text is empty, a label does not belong to the checkpoint, or there are no texts.
    """
    if not config.path and not config.hub:
        raise Refused("task=sequence_classification needs task.path=FILE, or task.hub= with .subset, .text and .label")
    for key in ("text", "label"):
        if not getattr(config, key):
            raise Refused(f"task.{key}= is empty; give the name of a column, e.g. task.{key}={key}")
    keys = {getattr(config, name): f"task.{name}" for name in ("text", "pair", "label") if getattr(config, name)}
    columns = list(keys)
    if config.pair == config.text:
        raise Refused(f"task.text and task.pair are both {config.text}; give two columns, or remove task.pair")
    path = Path(config.path)
    rows = from_table(path, columns, keys) if config.path else from_hub(config.hub, config.split, config.subset)
    examples = list(text_columns(rows, columns, keys))
    if not examples:
        raise Refused(f"{config.path or config.hub} has no texts")
    labels = [row[config.label] for _, row in examples]
    if names:
        _check_labels(config, names, labels, [place for place, _ in examples])
    if config.metric is not Metric.accuracy and len(set(labels)) == 1:
        raise Refused(
            f"every text of {config.path or config.hub} has the label {labels[0]!r}, and "
            f"task.metric={config.metric.name} needs several labels; use task.metric=accuracy or other data"
        )
    texts = [[row[column] for column in columns[:-1]] for _, row in examples]
    reading = {} if config.labels is LabelReading.auto else {"reading": config.labels.name}
    return texts, {"labels": labels, "metric": config.metric.name, **reading}


def _check_labels(config: TaskConfig, names: Mapping[int, str], labels: Sequence[str], places: Sequence[str]) -> None:
    try:
        label_places(names, labels, config.labels.name)
    except UnknownLabel as error:
        where = places[labels.index(error.label)] if error.label else config.path or config.hub
        raise Refused(f"{where}: {error}") from None


def question_answering(config: TaskConfig) -> tuple[list[list[str]], dict[str, object]]:
    """Read questions with their contexts, and their targets.

    Returns:
        Question and context of each example, and targets: `contexts` and `answers` (the correct answers by question).

    Raises:
        Refused: the file does not have SQuAD's format, a text is empty, or there are no questions.
    """
    rows = _from_squad(Path(config.path)) if config.path else from_hub(config.hub, config.split, config.subset)
    texts, answers = [], []
    for place, row in rows:
        ((_, parts),) = text_columns([(place, row)], ("question", "context"))
        column = row.get("answers")
        if not isinstance(column, Mapping) or not isinstance(column.get("text"), Sequence):
            raise Refused(f"{place}: there is no column answers with a list text; use SQuAD's format")
        correct = [str(text) for text in column["text"]]
        if not correct:
            raise Refused(f"{place}: there is no answer; remove questions without an answer (SQuAD 2)")
        texts.append([parts["question"], parts["context"]])
        answers.append(correct)
    if not texts:
        raise Refused(f"{config.path or config.hub} has no questions")
    return texts, {"contexts": [context for _, context in texts], "answers": answers}


def _from_squad(path: Path) -> Iterable[tuple[str, dict[str, object]]]:
    """Yield the rows of a file in the format of SQuAD's authors (dev-v1.1.json), in the format of the hub."""
    if not is_file(path):
        raise Refused(f"task.path={path} is not a file; give a file in SQuAD's format, e.g. dev-v1.1.json")
    text = decoded(f"task.path={path}", read_bytes("task.path", path))
    try:
        for article in json.loads(text)["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = {"text": [answer["text"] for answer in question["answers"]]}
                    row = {"question": question["question"], "context": paragraph["context"], "answers": answers}
                    yield f"{path}, question {question['id']}", row
    except RecursionError:
        raise Refused(f"{path} is nested too deeply; give a file in SQuAD's format") from None
    except ValueError as error:
        raise Refused(f"{path} is not JSON: {error}") from None
    except (KeyError, TypeError) as error:
        raise Refused(f"{path} is not in SQuAD's format: {type(error).__name__} {error}") from None
