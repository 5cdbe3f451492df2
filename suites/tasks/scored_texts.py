"""Tasks of texts with scores: similarity of pairs by embeddings, and scores from a checkpoint with one output."""

from __future__ import annotations

from collections.abc import Sequence

from suites.schema.config import TaskConfig
from suites.schema.refusals import Refused
from suites.tasks.datasets import column_keys, number_of, rows_of, text_of


def pairs(config: TaskConfig) -> tuple[list[str], dict[str, object]]:
    """Read pairs of texts with scores.

    Returns:
        The different texts, and targets: `pairs` (indices of two texts) and `scores`.

    Raises:
        Refused: a column is missing, a text is empty, a score is not a number, or all scores are equal.
    """
    keys = column_keys(config, "text", "pair", "score")
    rows: dict[str, int] = {}
    indices, scores = [], []
    for place, row in rows_of(config, list(keys), keys):
        both = [text_of(place, column, row[column]) for column in (config.text, config.pair)]
        indices.append([rows.setdefault(text, len(rows)) for text in both])
        scores.append(number_of(place, config.score, row[config.score]))
    _check_scores(config, scores)
    return list(rows), {"pairs": indices, "scores": scores}


def regression(config: TaskConfig) -> tuple[list[list[str]], dict[str, object]]:
    """Read texts, or pairs of texts, with scores.

    Returns:
        The parts of each text, and targets: `scores`.

    Raises:
        Refused: as `pairs`.
    """
    keys = column_keys(config, "text", *(["pair"] if config.pair else []), "score")
    *columns, score = keys
    texts, scores = [], []
    for place, row in rows_of(config, list(keys), keys):
        texts.append([text_of(place, column, row[column]) for column in columns])
        scores.append(number_of(place, score, row[score]))
    _check_scores(config, scores)
    return texts, {"scores": scores}


def _check_scores(config: TaskConfig, scores: Sequence[float]) -> None:
    if len(set(scores)) < 2:
        raise Refused(
            f"every row of {config.path or config.hub} has the {config.score} {scores[0]:g}; a rank correlation needs "
            "different scores: name another column with task.score, or give other data"
        )
