"""Tasks that a model is judged by: their texts and what is to be found for them. Nothing of a data set is kept here.

A task comes from `task.path` (a folder with the files that its authors publish) or, without one, from the hub through
the library `datasets`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suites.checks import Refused, lines
from suites.config import TaskConfig, TaskKind

SHOTS, EXPERIMENTS, SEED = 8, 10, 42
"""Of BANKING77 as MTEB runs it: a classifier on 8 texts a label, 10 times, each shuffle from the same seed."""


@dataclass(frozen=True)
class Task:
    """Texts to embed, texts to calibrate with, and targets as JSON that suites/scoring.py reads.

    `targets` of stsb: pairs (indices of two texts) and scores (0 to 5); of banking77: labels by text, experiments
    (indices of the texts to learn from) and test (indices).
    """

    kind: str
    texts: tuple[str, ...]
    calibration: tuple[str, ...]
    targets: Mapping[str, Any] = field(default_factory=dict)


def load_task(config: TaskConfig) -> Task:
    """
    Raises:
        Refused: a file is missing or malformed, with its name and line, or the hub cannot be reached.
    """
    if config.kind is TaskKind.stsb:
        return _stsb(config)
    if config.kind is TaskKind.banking77:
        return _banking77(config)
    texts = tuple(lines("task.path", config.path))
    return Task("fidelity", texts, texts)


def _stsb(config: TaskConfig) -> Task:
    def rows(split: str) -> list[tuple[str, str, float]]:
        found = []
        for place, row in _rows(config, split, f"sts-{split}.csv", ("sentence1", "sentence2", "score"), tabs=True):
            try:
                score = float(row["score"])
            except ValueError:
                raise Refused(f"{place}: the score {row['score']!r} is not a number") from None
            found.append((row["sentence1"], row["sentence2"], score))
        return found

    pairs = rows("test")
    texts = sorted({text for one, two, _ in pairs for text in (one, two)})
    place = {text: index for index, text in enumerate(texts)}
    targets = {
        "pairs": [[place[one], place[two]] for one, two, _ in pairs],
        "scores": [score for _, _, score in pairs],
    }
    return Task("stsb", tuple(texts), tuple(text for one, two, _ in rows("dev") for text in (one, two)), targets)


def _banking77(config: TaskConfig) -> Task:
    train, test = (
        [
            (place, row["text"], row["category"])
            for place, row in _rows(config, split, f"{split}.csv", ("text", "category"))
        ]
        for split in ("train", "test")
    )
    known = {label for _, _, label in train}
    for place, _, label in test:
        if label not in known:
            raise Refused(f"{place}: the label {label!r} is not one of the {len(known)} in the training part")
    experiments = few_shot([label for _, _, label in train])
    used = sorted({index for picked in experiments for index in picked})
    place_of = {index: place for place, index in enumerate(used)}
    targets = {
        "labels": [train[index][2] for index in used] + [label for _, _, label in test],
        "experiments": [[place_of[index] for index in picked] for picked in experiments],
        "test": list(range(len(used), len(used) + len(test))),
    }
    texts = tuple(train[index][1] for index in used) + tuple(text for _, text, _ in test)
    return Task("banking77", texts, tuple(train[index][1] for index in used[:512]), targets)


def few_shot(labels: list[str]) -> list[list[int]]:
    """Indices to learn from, for each experiment: the first few of each label in an order that is shuffled again."""
    import numpy as np

    order, experiments = list(range(len(labels))), []
    for _ in range(EXPERIMENTS):
        # numpy's global generator, seeded anew each time: what the published figure was made with.
        np.random.seed(SEED)
        np.random.shuffle(order)
        taken: dict[str, int] = {}
        picked = []
        for index in order:
            if taken.setdefault(labels[index], 0) < SHOTS:
                taken[labels[index]] += 1
                picked.append(index)
        experiments.append(picked)
    return experiments


STSB_COLUMNS = ("genre", "filename", "year", "id", "score", "sentence1", "sentence2")


def _rows(
    config: TaskConfig, split: str, file: str, columns: tuple[str, ...], tabs: bool = False
) -> Iterable[tuple[str, dict[str, str]]]:
    """(where it is, the row) for each row of a split, with no column missing and no text empty."""
    rows = _from_folder(Path(config.path), file, tabs) if config.path else _from_hub(config.hub, split)
    for place, row in rows:
        for column in columns:
            if row.get(column) is None:
                raise Refused(f"{place}: there is no column {column}; {config.kind.name} needs {', '.join(columns)}")
            if not row[column].strip():
                raise Refused(f"{place}: {column} is empty")
        yield place, {column: row[column].strip() for column in columns}


def _from_folder(folder: Path, file: str, tabs: bool) -> Iterable[tuple[str, dict[str, Any]]]:
    path = folder / file
    if not path.is_file():
        raise Refused(f"task.path={folder} has no {file}")
    with path.open(encoding="utf-8", newline="") as stream:
        reader: Any
        if tabs:
            reader = csv.DictReader(stream, STSB_COLUMNS, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            reader = csv.DictReader(stream)
        for row in reader:
            yield f"{path}, line {reader.line_num}", row


def _from_hub(hub: str, split: str) -> Iterable[tuple[str, dict[str, Any]]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise Refused("give task.path=FOLDER, or pip install datasets to fetch the task from the hub") from None
    try:
        data = load_dataset(hub, split="validation" if split == "dev" else split)
    except Exception as error:  # the library raises whatever its HTTP client of the day raises
        raise Refused(f"{hub} cannot be fetched ({type(error).__name__}); give task.path=FOLDER") from None
    names = {"label_text": "category"}
    for number, row in enumerate(data, 1):
        yield f"{hub}, {split} row {number}", {names.get(name, name): str(value) for name, value in row.items()}
