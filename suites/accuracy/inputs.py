"""Inputs of suite=accuracy: the texts of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from backends.base import Source
from backends.inputs.batches import InputSource
from backends.inputs.task_batches import TaskTexts, prepare_task_batches
from backends.inputs.tokenized import Text
from backends.model.pooling import pooling_of
from backends.model_output import EMBEDDING
from suites.accuracy.suite import AccuracyQuestion
from suites.running.job import ExportJob
from suites.running.prepared import Prepared


def prepare(job: ExportJob, origin: InputSource, source: Source) -> Prepared:
    """
    Raises:
        Unsupported, Unavailable: the checkpoint lacks the pooling or tokenizer that the task needs.
    """
    question, output = cast(AccuracyQuestion, job.question), job.spec.output
    texts, random = cast("Sequence[Text]", question.texts), question.kind == "fidelity"
    if output.kind != EMBEDDING:
        task = TaskTexts(texts, random, words=question.kind == "token_classification")
        return Prepared(source, prepare_task_batches(origin, job.spec.shapes, task))
    pooling = pooling_of(origin.folder).changed_by(output)
    task = TaskTexts(pooling.texts(texts), random, pooling.longest)
    inputs = prepare_task_batches(origin, job.spec.shapes, task)
    return Prepared(source, replace(inputs, notes={**inputs.notes, "pooling": pooling.note}))
