"""How far are the results on a task from those of FP32?"""

from __future__ import annotations

from dataclasses import dataclass

from suites.suite import Judging, Question, Scores, SuiteDescription


@dataclass(frozen=True)
class AccuracyQuestion(Question):
    """The texts to run and how their outputs are read.

    Attributes:
        kind: name of a TaskKind.
        readout: name of a readout in backends/inputs/readout.py.
        labels: labels that the checkpoint must have.
        reading: how labels are read; one of READINGS in backends/model/labels.py.
        texts: each a str, or a list of two for pairs of texts.
    """

    kind: str
    readout: str
    labels: tuple[str, ...]
    reading: str
    texts: tuple[object, ...]


def judged(scores: Scores, judging: Judging) -> Scores:
    return {**scores, "tolerance": judging.tolerance}


SUITE = SuiteDescription(judges_tasks=True, question=AccuracyQuestion, judged=judged)
