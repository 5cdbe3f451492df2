"""How far are the results on a task from those of FP32?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from backends.base import Unsupported
from backends.model.labels import head_fault, label_names_of_config, label_places
from backends.model_output import LOGITS
from suites.accuracy.result import RESULT
from suites.suite import Judging, ModelUse, Question, Result, SuiteDescription
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


def check_model(question: Question, use: ModelUse) -> None:
    """
    Raises:
        Unsupported: the head of the checkpoint is not for the task, or it does not have the labels of the data set.
    """
    assert isinstance(question, AccuracyQuestion)
    try:
        if problem := head_fault(use.config, question.kind):
            raise Unsupported(problem)
        if use.output.kind == LOGITS and question.labels:
            label_places(label_names_of_config(use.config), question.labels, question.reading)
    except ValueError as error:
        raise Unsupported(str(error)) from None


SUITE = SuiteDescription(
    judges_tasks=True, question=AccuracyQuestion, result=RESULT, judged=judged, check_model=check_model
)
