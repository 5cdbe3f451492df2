"""Tasks for a user's own fine-tuned checkpoint: labels for texts or pairs of them, and answers out of contexts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.heads import label_places
from suites.checks import Refused
from suites.config import TaskConfig
from suites.tasks.rows import from_hub, from_table, texts_of


def sequence_classification(
    config: TaskConfig, names: Mapping[int, str] | None
) -> tuple[list[list[str]], dict[str, Any]]:
    """Texts of one part or two, and targets: labels (by text, a name or number of the checkpoint's) and metric.

    Args:
        names: the checkpoint's labels by their places, where they are known.

    Raises:
        Refused: a column is missing, a text is empty, a label is none of the checkpoint's, or nothing is there.
    """
    if not config.path and not config.hub:
        raise Refused("task=sequence_classification needs task.path=FILE, or task.hub= with .subset, .text and .label")
    columns = [column for column in (config.text, config.pair, config.label) if column]
    rows = from_table(Path(config.path)) if config.path else from_hub(config.hub, config.split, config.subset)
    found = []
    for place, row in texts_of(rows, columns):
        try:
            label_places(names, [row[config.label]]) if names else None
        except ValueError as error:
            raise Refused(f"{place}: {error}") from None
        found.append(row)
    if not found:
        raise Refused(f"{config.path or config.hub} holds no texts")
    texts = [[row[column] for column in columns[:-1]] for row in found]
    return texts, {"labels": [row[config.label] for row in found], "metric": config.metric.name}


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
    if not path.is_file():
        raise Refused(f"task.path={path} is not a file; give one in SQuAD's form, e.g. dev-v1.1.json")
    try:
        for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = {"text": [answer["text"] for answer in question["answers"]]}
                    asked = {"question": question["question"], "context": paragraph["context"], "answers": answers}
                    yield f"{path}, question {question['id']}", asked
    except ValueError as error:
        raise Refused(f"{path} is not JSON: {error}") from None
    except (KeyError, TypeError) as error:
        raise Refused(f"{path} is not in SQuAD's form: {type(error).__name__} {error}") from None
