"""How far are the results on a task from those of FP32?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from suites.accuracy.result import RESULT
from suites.suite import Judging, Question, Result, SuiteDescription
from suites.tasks.task_scores import TaskScores


@dataclass(frozen=True)
class AccuracyQuestion(Question):
    """The texts to run.

    Attributes:
        kind: name of a TaskKind.
        labels: labels that the checkpoint must have.
        reading: how labels are read; one of READINGS in backends/model/labels.py.
        texts: each a str, a list of two for pairs of texts, or the list of tokens for token_classification.
    """

    kind: str
    labels: tuple[str, ...]
    reading: str
    texts: tuple[object, ...]


def judged(result: Result, judging: Judging) -> Result:
    assert isinstance(result, TaskScores)
    return replace(result, tolerance=judging.tolerance)


SUITE = SuiteDescription(judges_tasks=True, question=AccuracyQuestion, result=RESULT, judged=judged)
