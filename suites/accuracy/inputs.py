"""Inputs of suite=accuracy: the texts of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from backends.base import Source
from backends.inputs.batches import InputSource
from backends.inputs.pooling import pooling_of
from backends.inputs.task_batches import TaskTexts, prepare_task_batches
from backends.inputs.tokenized import Text
from backends.model.heads import check_head
from suites.accuracy.suite import AccuracyQuestion
from suites.running.job import ExportJob
from suites.running.prepared import Prepared


def prepare(job: ExportJob, origin: InputSource, source: Source) -> Prepared:
    """
    Raises:
        Unsupported, Unavailable: the checkpoint lacks the head, labels, pooling or tokenizer that the task needs.
    """
    question = cast(AccuracyQuestion, job.question)
    readout, drift = question.readout, question.kind == "fidelity"
    check_head(origin.folder, readout, question.labels, question.reading)
    pooling = pooling_of(origin.folder) if readout == "mean" else None
    chosen = pooling.readout if pooling else readout
    texts = cast("Sequence[Text]", question.texts)
    texts, longest = (pooling.texts(texts), pooling.longest) if pooling else (texts, 0)
    inputs = prepare_task_batches(origin, job.spec.shapes, TaskTexts(texts, chosen, drift, longest))
    return Prepared(source, replace(inputs, notes={**inputs.notes, "pooling": pooling.note}) if pooling else inputs)
