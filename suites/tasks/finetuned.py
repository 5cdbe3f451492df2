"""Tasks for a fine-tuned checkpoint of the user: labels of texts or of pairs of texts, and answers from contexts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from backends.model.labels import UnknownLabel, label_places
from suites.schema.config import TaskConfig
from suites.schema.enums import LabelReading, Metric
from suites.schema.refusals import Refused, decoded, is_file, read_bytes, shortened
from suites.tasks.datasets import column_keys, from_hub, is_blank, rows_of, text_columns, text_of

ENTITY_TAGS = ("B-", "I-", "E-", "S-", "L-", "U-")
"""Begin of the tags that seqeval reads."""

SQUAD = "a file in the format of SQuAD 1.1, e.g. dev-v1.1.json"


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
    keys = column_keys(config, "text", *(["pair"] if config.pair else []), "label")
    columns = list(keys)
    examples = list(text_columns(rows_of(config, columns, keys), columns, keys))
    labels = [row[config.label] for _, row in examples]
    _check_labels(config, names, labels, [place for place, _ in examples])
    if config.metric is not Metric.accuracy and len(set(labels)) == 1:
        raise Refused(
            f"every text of {config.path or config.hub} has the label {labels[0]!r}, and "
            f"task.metric={config.metric.name} needs several labels; use task.metric=accuracy or other data"
        )
    texts = [[row[column] for column in columns[:-1]] for _, row in examples]
    return texts, {"labels": labels, "metric": config.metric.name, **_reading(config)}


def multi_label(config: TaskConfig, names: Mapping[int, str] | None) -> tuple[list[list[str]], dict[str, object]]:
    """Read texts of one part or two with any number of labels.

    Args:
        names: the labels of the checkpoint by index; None if unknown.

    Returns:
        The parts of each text, and targets: `labels` (a list for each text) and `reading`, as for
        `sequence_classification`.

    Raises:
        Refused: a column is missing, a text is empty, a label does not belong to the checkpoint, or no text has one.
    """
    keys = column_keys(config, "text", *(["pair"] if config.pair else []), "label")
    *columns, label = keys
    texts, labels, places = [], [], []
    for place, row in rows_of(config, list(keys), keys):
        texts.append([text_of(place, column, row[column]) for column in columns])
        value = row[label]
        if isinstance(value, list):
            parts = [text_of(place, label, part) for part in value]
        else:
            parts = [] if is_blank(value) else text_of(place, label, value).split(config.separator or None)
        labels.append([text for part in parts if (text := part.strip())])
        places.append(place)
    if not any(labels):
        raise Refused(f"no text of {config.path or config.hub} has a label; name the column of labels with task.label")
    _check_labels(config, names, *_flat(labels, places))
    return texts, {"labels": labels, **_reading(config)}


def token_classification(
    config: TaskConfig, names: Mapping[int, str] | None
) -> tuple[list[list[str]], dict[str, object]]:
    """Read lists of tokens with a tag for each token.

    Args:
        names: the labels of the checkpoint by index; None if unknown.

    Returns:
        The tokens of each text, and targets: `tags` (a list for each text) and `reading`, as for
        `sequence_classification`.

    Raises:
        Refused: a column is missing or has no lists, tokens and tags differ in number, a tag does not belong to the
            checkpoint, the tags are not those of entities, or no token has one.
    """
    keys = column_keys(config, "text", "label")
    texts, tags, places = [], [], []
    for place, row in rows_of(config, list(keys), keys):
        lists = []
        for column in keys:
            value = row[column]
            if not isinstance(value, list) or not value:
                raise Refused(f"{place}: {column} must be a list with an entry for each token; use .jsonl or .parquet")
            if None in value:
                raise Refused(
                    f"{place}: {column} has null in entry {value.index(None) + 1}; give a text for each token"
                )
            lists.append([str(entry) for entry in value])
        tokens, own = lists
        if len(tokens) != len(own):
            raise Refused(f"{place}: {len(tokens)} {config.text} have {len(own)} {config.label}; give one for each")
        texts.append(tokens)
        tags.append([tag.strip() for tag in own])
        places.append(place)
    flat, places = _flat(tags, places)
    _check_labels(config, names, flat, places)
    known = [*names.values()] if names else [tag for tag in set(flat) if not tag.isdigit()]
    if known and not any(tag[:2] in ENTITY_TAGS for tag in known):
        raise Refused(
            f"the tags {shortened(', '.join(sorted(known)))} are not those of entities; F1 of entities needs tags such "
            "as B-PER, I-PER and O: give a checkpoint and data with them"
        )
    correct = [names[place] for place in label_places(names, flat, config.labels.name)] if names else flat
    if not any(tag[:2] in ENTITY_TAGS or (tag.isdigit() and not names) for tag in correct):
        raise Refused(
            f"no token of {config.path or config.hub} has the tag of an entity, so F1 of entities is always 0; name "
            "the column of tags with task.label, or give data with entities"
        )
    return texts, {"tags": tags, **_reading(config)}


def _flat(lists: Sequence[Sequence[str]], places: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return all entries of the lists, and the place of the list of each entry."""
    return [entry for listed in lists for entry in listed], [
        place for listed, place in zip(lists, places, strict=True) for _ in listed
    ]


def _reading(config: TaskConfig) -> dict[str, str]:
    return {} if config.labels is LabelReading.auto else {"reading": config.labels.name}


def _check_labels(
    config: TaskConfig, names: Mapping[int, str] | None, labels: Sequence[str], places: Sequence[str]
) -> None:
    if not names:
        return
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
        raise Refused(f"{config.path or config.hub} has no questions; give a data set with at least one")
    return texts, {"contexts": [context for _, context in texts], "answers": answers}


def _from_squad(path: Path) -> Iterable[tuple[str, dict[str, object]]]:
    """Yield the rows of a file in the format of SQuAD's authors (dev-v1.1.json), in the format of the hub."""
    if not is_file(path):
        raise Refused(f"task.path={path} is not a file; give {SQUAD}")
    text = decoded(f"task.path={path}", read_bytes("task.path", path))
    try:
        for article in json.loads(text)["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = {"text": [answer["text"] for answer in question["answers"]]}
                    row = {"question": question["question"], "context": paragraph["context"], "answers": answers}
                    yield f"{path}, question {question['id']}", row
    except RecursionError:
        raise Refused(f"{path} is nested too deeply; give {SQUAD}") from None
    except ValueError as error:
        raise Refused(f"{path} is not JSON ({error}); give {SQUAD}") from None
    except KeyError as error:
        raise Refused(f"{path} is not in SQuAD's format: it lacks the key {error}; give {SQUAD}") from None
    except TypeError:
        raise Refused(f"{path} is not in SQuAD's format; give {SQUAD}") from None
