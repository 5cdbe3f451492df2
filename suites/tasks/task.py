"""Tasks that measure the accuracy of a model: texts and targets. The project contains no data sets.

A task comes from `task.path` (a folder with the files of its authors) or, without it, from the hub through the library
`datasets`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backends.json_codec import from_json
from backends.model_output import EMBEDDING, LOGITS, SCORE, SPANS
from suites.schema.config import TaskConfig
from suites.schema.enums import TaskKind
from suites.schema.refusals import Refused, is_file, lines, shortened
from suites.tasks.datasets import (
    OTHER_FORMATS,
    TABLES,
    Rows,
    from_hub,
    from_table,
    from_table_without_header,
    text_columns,
)
from suites.tasks.finetuned import multi_label, question_answering, sequence_classification, token_classification
from suites.tasks.mteb_task import mteb
from suites.tasks.ranked_texts import reranking, retrieval
from suites.tasks.scored_texts import pairs, regression

Text = str | Sequence[str]

STSB_COLUMNS = ("genre", "filename", "year", "id", "score", "sentence1", "sentence2")

SENTENCES = TaskConfig.path

OUTPUTS = {
    "sequence_classification": LOGITS,
    "multi_label": LOGITS,
    "regression": LOGITS,
    "token_classification": LOGITS,
    "question_answering": SPANS,
    "reranking": SCORE,
}
"""Kind of output by the kind of the task that judges it; an embedding for the others."""

LOADERS: Mapping[TaskKind, Callable[[TaskConfig], tuple[Sequence[Text], Mapping[str, object]]]] = {
    TaskKind.pairs: pairs,
    TaskKind.retrieval: retrieval,
    TaskKind.reranking: reranking,
    TaskKind.regression: regression,
    TaskKind.question_answering: question_answering,
    TaskKind.mteb: mteb,
}
"""Functions that return the texts and targets of a task."""

LABELED: Mapping[TaskKind, Callable[..., tuple[Sequence[Text], Mapping[str, object]]]] = {
    TaskKind.sequence_classification: sequence_classification,
    TaskKind.multi_label: multi_label,
    TaskKind.token_classification: token_classification,
}
"""The same for tasks with labels of the checkpoint, which are the second argument."""

OPTIONAL_KEYS = {
    "pair": ("pairs", "retrieval", "reranking", "regression", "sequence_classification", "multi_label"),
    "corpus": ("retrieval",),
}
"""Kinds that read a key which is empty by default."""

SHOTS, EXPERIMENTS, SEED = 8, 10, 42
"""BANKING77 as in MTEB: train a classifier on 8 texts per label, 10 times; each shuffle uses the same seed."""


@dataclass(frozen=True)
class Task:
    """Texts and targets of a task.

    Attributes:
        kind: name of a TaskKind.
        texts: texts that measure the accuracy, of one part or two.
        calibration: texts for calibration.
        targets: JSON values for suites/tasks/scoring.py. stsb: pairs (indices of two texts) and scores (0 to 5).
            banking77: labels by text, experiments (indices of training texts) and test (indices). For the others see
            suites/tasks/finetuned.py. fidelity has none.
    """

    kind: str
    texts: tuple[Text, ...]
    calibration: tuple[str, ...]
    targets: Mapping[str, object] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """Kind of output that the task judges, see Output in backends/model_output.py."""
        return OUTPUTS.get(self.kind, EMBEDDING)

    @property
    def labels(self) -> list[str]:
        """Labels that the checkpoint must have."""
        if self.kind == "sequence_classification":
            return sorted(set(from_json(list[str], self.targets["labels"], "labels")))
        name = {"multi_label": "labels", "token_classification": "tags"}.get(self.kind)
        lists = from_json(list[list[str]], self.targets[name], name) if name else []
        return sorted({label for listed in lists for label in listed})

    @property
    def reading(self) -> str:
        """How the labels are read; one of READINGS in backends/model/labels.py."""
        return str(self.targets.get("reading", "auto"))


def load_task(config: TaskConfig, labels: Mapping[int, str] | None = None) -> Task:
    """Read a task from its files or from the hub.

    Args:
        labels: labels of the checkpoint by index; None if unknown.

    Raises:
        Refused: a file is missing or malformed (the message names the file and the line), or the hub cannot be reached.
    """
    for key, kinds in OPTIONAL_KEYS.items():
        if (value := getattr(config, key)) and config.kind.name not in kinds:
            raise Refused(f"task={config.name} does not read task.{key}={value}; remove it, or choose another task")
    if config.kind is TaskKind.stsb:
        return _stsb(config)
    if config.kind is TaskKind.banking77:
        return _banking77(config)
    if config.kind is TaskKind.fidelity:
        _refuse_table(config)
        texts = tuple(lines("task.path", config.path))
        return Task("fidelity", texts, _calibration(config) or texts)
    loaded = LABELED[config.kind](config, labels) if config.kind in LABELED else LOADERS[config.kind](config)
    judged, targets = loaded
    # A fine-tuned model is not calibrated with the texts that measure its accuracy.
    return Task(config.kind.name, tuple(judged), _calibration(config) or tuple(lines("task.path", SENTENCES)), targets)


def _refuse_table(config: TaskConfig) -> None:
    """Refuse a table as the file of task=sentences, whose lines are sentences.

    Raises:
        Refused: the file is a table. The message names the tasks that read tables.
    """
    suffix = Path(config.path).suffix.lower()
    if suffix in (*TABLES, *OTHER_FORMATS):
        raise Refused(
            f"task.path={shortened(config.path, 300)} is a table, but task={config.name} reads one sentence per line "
            "of a text file; use task=pairs for pairs with scores, task=sequence_classification with task.text=COLUMN "
            "and task.label=COLUMN for labels, task=question_answering for SQuAD's .json, or save one column as a "
            ".txt file"
        )


def _calibration(config: TaskConfig) -> tuple[str, ...]:
    if Path(config.calibration).suffix.lower() in (*TABLES, *OTHER_FORMATS):
        raise Refused(
            f"task.calibration={shortened(config.calibration, 300)} is a table, but it must have one text per line; "
            "save one column as a .txt file"
        )
    return tuple(lines("task.calibration", config.calibration)) if config.calibration else ()


def _stsb(config: TaskConfig) -> Task:
    def read(split: str) -> list[tuple[str, str, float]]:
        pairs = []
        rows = _rows(config, split, f"sts-{split}.csv", STSB_COLUMNS, header=False)
        for place, row in text_columns(rows, ("sentence1", "sentence2", "score")):
            try:
                score = float(row["score"])
            except ValueError:
                raise Refused(f"{place}: the score {row['score']!r} is not a number") from None
            if not 0 <= score <= 5:
                raise Refused(f"{place}: the score {row['score']} is not between 0 and 5")
            pairs.append((row["sentence1"], row["sentence2"], score))
        if len(pairs) < 2:
            raise Refused(f"{_part(config, f'sts-{split}.csv', split)} must have at least 2 pairs, not {len(pairs)}")
        return pairs

    pairs = read("test")
    texts = sorted({text for first, second, _ in pairs for text in (first, second)})
    place = {text: index for index, text in enumerate(texts)}
    targets = {
        "pairs": [[place[first], place[second]] for first, second, _ in pairs],
        "scores": [score for _, _, score in pairs],
    }
    calibration = _calibration(config) or tuple(text for first, second, _ in read("dev") for text in (first, second))
    return Task("stsb", tuple(texts), calibration, targets)


def _banking77(config: TaskConfig) -> Task:
    train, test = (
        [
            (place, row["text"], row["category"])
            for place, row in text_columns(
                _rows(config, split, f"{split}.csv", ("text", "category")), ("text", "category")
            )
        ]
        for split in ("train", "test")
    )
    labels = {label for _, _, label in train}
    if len(labels) < 2:
        raise Refused(f"{_part(config, 'train.csv', 'train')} must have at least 2 labels, not {len(labels)}")
    if not test:
        raise Refused(f"{_part(config, 'test.csv', 'test')} has no texts")
    for place, _, label in test:
        if label not in labels:
            raise Refused(f"{place}: the label {label!r} is not one of the {len(labels)} in the training part")
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
    """Return the indices of training texts for each experiment: the first SHOTS of each label after another shuffle."""
    import numpy as np

    order, experiments = list(range(len(labels))), []
    for _ in range(EXPERIMENTS):
        # MTEB seeds numpy's global generator before each shuffle; published results use this order.
        np.random.seed(SEED)
        np.random.shuffle(order)
        counts: dict[str, int] = {}
        picked = []
        for index in order:
            if counts.setdefault(labels[index], 0) < SHOTS:
                counts[labels[index]] += 1
                picked.append(index)
        experiments.append(picked)
    return experiments


def _part(config: TaskConfig, file: str, split: str) -> str:
    return str(_folder(config, file) / file) if config.path else f"{config.hub}, {split}"


def _folder(config: TaskConfig, file: str) -> Path:
    """Return `task.path`, or its subfolder with the name of the task, so that several tasks can have the same path."""
    named = Path(config.path) / config.name
    return named if is_file(named / file) and not is_file(Path(config.path) / file) else Path(config.path)


def _rows(config: TaskConfig, split: str, file: str, columns: Sequence[str], header: bool = True) -> Rows:
    """Yield the rows of a split. Without a `header` its file has `columns` in this order, separated by tabs."""
    if config.path:
        yield from (from_table if header else from_table_without_header)(_folder(config, file) / file, columns)
        return
    names = {"label_text": "category"}
    for place, row in from_hub(config.hub, "validation" if split == "dev" else split):
        yield place, {names.get(name, name): value for name, value in row.items()}
