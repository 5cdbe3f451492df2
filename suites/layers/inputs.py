"""Inputs of suite=layers: one batch, and a source whose outputs are a chunk of the model's points."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from backends.base import Source
from backends.inputs.batches import InputSource
from backends.onnx_.marked_outputs import mark_onnx, marked_points, prepare_marked
from backends.onnx_.onnx_source import export_onnx
from suites.layers.suite import LayersQuestion
from suites.running.job import ExportJob
from suites.running.prepared import Prepared


def prepare(job: ExportJob, origin: InputSource, source: Source) -> Prepared:
    question = cast(LayersQuestion, job.question)
    onnx = export_onnx(origin.folder, origin.identity, origin.cache)
    points = marked_points(onnx)
    chunk = points[question.begin : question.begin + question.size]
    inputs = prepare_marked(origin, onnx, chunk, job.spec.shapes[-1])
    marked = replace(source, onnx=source.onnx and mark_onnx(source.onnx, chunk, origin.cache), marked=tuple(chunk))
    return Prepared(marked, inputs, points=len(points))
