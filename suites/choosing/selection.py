"""Selection of the rankings that a command compares, by machine, model and shape."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from suites.choosing.choice import name_of
from suites.latency.ranking import Ranking
from suites.schema.refusals import Refused, nearest, shortened

SHOWN = 8
"""Number of names that a refusal lists."""


@dataclass(frozen=True)
class Selection:
    """Values of the options that select rankings; an empty text selects all."""

    machine: str = ""
    model: str = ""
    shape: str = ""

    def of(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Return the selected rankings.

        Raises:
            Refused: no ranking has this machine, model or shape, or no ranking has two rows.
        """
        chosen = [ranking for ranking in rankings if self.machine.lower() in _machine(ranking).lower()]
        if not chosen:
            raise Refused(_no_such("--machine", self.machine, [*map(_folder, rankings)]))
        if self.model:
            models = [model for ranking in chosen for model in _models(ranking)]
            chosen = [ranking for ranking in chosen if self.model in _models(ranking)]
            if not chosen:
                raise Refused(_no_such("--model", self.model, models))
        if all(len(ranking.rows) < 2 for ranking in chosen):
            raise Refused(_nothing_in_common(chosen))
        return self._of_shape(chosen)

    def _of_shape(self, rankings: list[Ranking]) -> list[Ranking]:
        if not self.shape:
            return rankings
        batch, sequence = parse_shape(self.shape)
        chosen = [ranking for ranking in rankings if (ranking.batch, ranking.sequence) == (batch, sequence)]
        if not chosen:
            shapes = sorted({(ranking.sequence, ranking.batch) for ranking in rankings})
            near = min(shapes, key=lambda shape: abs(shape[0] * shape[1] - batch * sequence))
            names = ", ".join(f"{count}x{tokens}" for tokens, count in shapes)
            raise Refused(
                f"no record has --shape {batch}x{sequence}; the nearest is {near[1]}x{near[0]}; measured: {names}"
            )
        return chosen


def parse_shape(text: str) -> tuple[int, int]:
    """Return batch and sequence length of BATCHxSEQUENCE.

    Raises:
        Refused: the text has another form.
    """
    found = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", text, re.ASCII)
    if not found:
        raise Refused(f"--shape {shortened(text)} is not BATCHxSEQUENCE, such as 8x128")
    return int(found[1]), int(found[2])


def _machine(ranking: Ranking) -> str:
    """Return the names of a machine: its folder and its title."""
    return f"{_folder(ranking)} {ranking.workload.machine}"


def _folder(ranking: Ranking) -> str:
    return ranking.rows[0].row.record.environment.machine


def _models(ranking: Ranking) -> tuple[str, str]:
    """Return the names of a model: without and with its version."""
    return ranking.rows[0].row.record.cell.model, ranking.workload.model


def _no_such(option: str, value: str, names: Sequence[str]) -> str:
    several = list(dict.fromkeys(names))
    near = nearest(value, several)
    hint = f"did you mean {near}? " if near else ""
    more = f" and {len(several) - SHOWN} more" if len(several) > SHOWN else ""
    return f"no record has {option} {shortened(value)}; {hint}measured: {', '.join(several[:SHOWN])}{more}"


def _nothing_in_common(rankings: Sequence[Ranking]) -> str:
    rows = [(name_of(item.row), ranking) for ranking in rankings for item in ranking.rows]
    measured = [f"{name} at {ranking.batch}x{ranking.sequence}" for name, ranking in rows]
    if len({item.row.record.cell.id for ranking in rankings for item in ranking.rows}) == 1:
        return f"only one record was found ({measured[0]}); measure another backend or precision"
    more = f" and {len(measured) - SHOWN} more" if len(measured) > SHOWN else ""
    return (
        "no two records have a shape in common on the same machine, model and lengths: "
        f"{', '.join(measured[:SHOWN])}{more}; measure them with the same batch= and sequence="
    )
