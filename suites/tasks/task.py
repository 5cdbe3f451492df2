"""Tasks that a model is judged by: their texts and what is to be found for them. Nothing of a data set is kept here.

A task comes from `task.path` (a folder with the files that its authors publish) or, without one, from the hub through
the library `datasets`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suites.checks import Refused, is_file, lines
from suites.choices import TaskKind
from suites.config import TaskConfig
from suites.tasks.finetuned import question_answering, sequence_classification
from suites.tasks.rows import Rows, from_headless, from_hub, from_table, texts_of

STSB_COLUMNS = ("genre", "filename", "year", "id", "score", "sentence1", "sentence2")

SENTENCES = "suites/sentences.txt"

SHOTS, EXPERIMENTS, SEED = 8, 10, 42
"""Of BANKING77 as MTEB runs it: a classifier on 8 texts a label, 10 times, each shuffle from the same seed."""


@dataclass(frozen=True)
class Task:
    """Texts to judge by (one part or two), texts to calibrate with, and targets as JSON for suites/tasks/scoring.py.

    `targets` of stsb: pairs (indices of two texts) and scores (0 to 5); of banking77: labels by text, experiments
    (indices of the texts to learn from) and test (indices); of the others see suites/tasks/finetuned.py.
    """

    kind: str
    texts: tuple[str | Sequence[str], ...]
    calibration: tuple[str, ...]
    targets: Mapping[str, Any] = field(default_factory=dict)

    @property
    def readout(self) -> str:
        """What of a model's output the task is judged by, a name of backends/readout.py."""
        return {"sequence_classification": "first", "question_answering": "spans"}.get(self.kind, "mean")

    @property
    def labels(self) -> list[str]:
        """The labels that the checkpoint itself must know."""
        return sorted(set(self.targets["labels"])) if self.kind == "sequence_classification" else []

    @property
    def reading(self) -> str:
        """How these are read, one of backends/labels.py's READINGS."""
        return str(self.targets.get("reading", "auto"))


def load_task(config: TaskConfig, labels: Mapping[int, str] | None = None) -> Task:
    """
    Args:
        labels: of the checkpoint by their places, where they are known.

    Raises:
        Refused: a file is missing or malformed, with its name and line, or the hub cannot be reached.
    """
    if config.kind is TaskKind.stsb:
        return _stsb(config)
    if config.kind is TaskKind.banking77:
        return _banking77(config)
    if config.kind is TaskKind.fidelity:
        texts = tuple(lines("task.path", config.path))
        return Task("fidelity", texts, _calibration(config) or texts)
    if config.kind is TaskKind.sequence_classification:
        judged, targets = sequence_classification(config, labels)
    else:
        judged, targets = question_answering(config)
    # What calibrates a fine-tuned model is not what judges it.
    return Task(config.kind.name, tuple(judged), _calibration(config) or tuple(lines("task.path", SENTENCES)), targets)


def _calibration(config: TaskConfig) -> tuple[str, ...]:
    return tuple(lines("task.calibration", config.calibration)) if config.calibration else ()


def _stsb(config: TaskConfig) -> Task:
    def rows(split: str) -> list[tuple[str, str, float]]:
        found = []
        rows = _rows(config, split, f"sts-{split}.csv", STSB_COLUMNS, header=False)
        for place, row in texts_of(rows, ("sentence1", "sentence2", "score")):
            try:
                score = float(row["score"])
            except ValueError:
                raise Refused(f"{place}: the score {row['score']!r} is not a number") from None
            if not 0 <= score <= 5:
                raise Refused(f"{place}: the score {row['score']} does not lie between 0 and 5")
            found.append((row["sentence1"], row["sentence2"], score))
        if len(found) < 2:
            raise Refused(f"{_part(config, f'sts-{split}.csv', split)} holds {len(found)} pairs; two are the least")
        return found

    pairs = rows("test")
    texts = sorted({text for one, two, _ in pairs for text in (one, two)})
    place = {text: index for index, text in enumerate(texts)}
    targets = {
        "pairs": [[place[one], place[two]] for one, two, _ in pairs],
        "scores": [score for _, _, score in pairs],
    }
    others = _calibration(config) or tuple(text for one, two, _ in rows("dev") for text in (one, two))
    return Task("stsb", tuple(texts), others, targets)


def _banking77(config: TaskConfig) -> Task:
    train, test = (
        [
            (place, row["text"], row["category"])
            for place, row in texts_of(_rows(config, split, f"{split}.csv", ("text", "category")), ("text", "category"))
        ]
        for split in ("train", "test")
    )
    known = {label for _, _, label in train}
    if len(known) < 2:
        raise Refused(f"{_part(config, 'train.csv', 'train')} holds {len(known)} labels; a classifier needs two")
    if not test:
        raise Refused(f"{_part(config, 'test.csv', 'test')} holds no texts")
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
    return Task("banking77", texts, _calibration(config) or tuple(train[index][1] for index in used[:512]), targets)


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


def _part(config: TaskConfig, file: str, split: str) -> str:
    return str(_folder(config, file) / file) if config.path else f"{config.hub}, {split}"


def _folder(config: TaskConfig, file: str) -> Path:
    """`task.path`, or the folder in it that has the task's name: one path for several tasks."""
    named = Path(config.path) / config.name
    return named if is_file(named / file) and not is_file(Path(config.path) / file) else Path(config.path)


def _rows(config: TaskConfig, split: str, file: str, columns: Sequence[str], header: bool = True) -> Rows:
    """Rows of a part. Without a `header` its file holds `columns` in their order, between tabs."""
    if config.path:
        yield from (from_table if header else from_headless)(_folder(config, file) / file, columns)
        return
    names = {"label_text": "category"}
    for place, row in from_hub(config.hub, "validation" if split == "dev" else split):
        yield place, {names.get(name, name): value for name, value in row.items()}
