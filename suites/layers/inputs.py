"""Inputs of suite=layers: one batch, and a source whose outputs are a chunk of the model's points."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from backends.base import Source, Unsupported
from backends.description import MARKED_LAYERS
from backends.inputs.batches import InputSource
from backends.model.checkpoint_files import read_config
from backends.model.supported import check_named_layers
from backends.onnx_.marked_outputs import mark_onnx, marked_points, prepare_marked
from backends.onnx_.onnx_source import export_onnx
from backends.registry import describe
from suites.layers.suite import LayersQuestion
from suites.running.job import ExportJob
from suites.running.prepared import Prepared


def prepare(job: ExportJob, origin: InputSource, source: Source) -> Prepared:
    """
    Raises:
        Unsupported: the backend cannot mark outputs, or the names of the model's layers are unknown.
    """
    question = cast(LayersQuestion, job.question)
    if MARKED_LAYERS not in describe(job.backend).outputs:
        raise Unsupported(f"backend={job.backend} returns only the last output; use a backend that marks layers")
    check_named_layers(read_config(origin.folder), "suite=layers")
    onnx = export_onnx(origin.folder, origin.identity, origin.cache)
    points = marked_points(onnx)
    chunk = points[question.begin : question.begin + question.size]
    inputs = prepare_marked(origin, onnx, chunk, job.spec.shapes[-1])
    marked = replace(source, onnx=source.onnx and mark_onnx(source.onnx, chunk, origin.cache), marked=tuple(chunk))
    return Prepared(marked, inputs, points=len(points))
