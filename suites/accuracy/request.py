"""The request of suite=accuracy: the texts of a task."""

from __future__ import annotations

from suites.accuracy.suite import AccuracyQuestion
from suites.asking.suite_request import RequestContext, SuiteRequest, require_model
from suites.records.cell import short_digest
from suites.schema.enums import Weights
from suites.schema.refusals import Refused, shortened

FEWEST = 3
"""Smallest number of sentences. Two sentences have one similarity, and ranks need several."""


def suite_request(context: RequestContext) -> SuiteRequest:
    """Add the texts of the task, and the digests of its texts and targets.

    Raises:
        Refused: the backend runs no model, the task needs trained weights, or there are too few sentences to rank.
    """
    config, task = context.config, context.task
    require_model(config)
    if config.weights is Weights.random and task.kind != "fidelity":
        raise Refused(f"task={config.task.name} needs trained weights; with weights=random use task=sentences")
    if task.kind == "fidelity" and len(set(task.texts)) < FEWEST:
        raise Refused(
            f"task.path={shortened(config.task.path, 300)} has fewer than {FEWEST} different sentences, which rank "
            "agreement needs; give a file with more lines"
        )
    lengths = {"task": config.task.name, "evaluated": short_digest(list(task.texts))}
    if task.targets:
        lengths["targets"] = short_digest(dict(task.targets))
    question = AccuracyQuestion(task.kind, tuple(task.labels), task.reading, tuple(task.texts))
    return SuiteRequest(context.shapes, context.shapes, question, lengths, output=task.output)
