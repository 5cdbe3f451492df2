"""Inputs of each suite. They are made in the interpreter with torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from backends.base import Artifact, Shape, Source, Unsupported
from backends.description import MARKED_LAYERS
from backends.inputs.batches import InputSource, prepare_inputs
from backends.inputs.pooling import pooling_of
from backends.inputs.request_inputs import prepare_request_sets
from backends.inputs.task_batches import prepare_task_batches
from backends.model.checkpoint_files import read_config
from backends.model.families import check_named_layers
from backends.model.heads import check_head
from backends.onnx_.marked_outputs import mark_onnx, marked_points, prepare_marked
from backends.onnx_.onnx_source import export_onnx
from backends.registry import describe

Job = Mapping[str, Any]

Prepared = tuple[Source, Artifact, Mapping[str, Any]]
"""Source to build from, inputs to run, and additional keys of the export stage's answer."""


def _batches(job: Job, origin: InputSource, source: Source, shapes: Sequence[Shape]) -> Prepared:
    inputs = prepare_inputs(origin, shapes)
    return source, inputs, {"shapes": [[int(size) for size in name.split("x")] for name in inputs.notes["shapes"]]}


def _texts(job: Job, origin: InputSource, source: Source, shapes: Sequence[Shape]) -> Prepared:
    readout, drift = job["readout"], job["kind"] == "fidelity"
    check_head(origin.folder, readout, job["labels"], job.get("reading", "auto"))
    pooling = pooling_of(origin.folder) if readout == "mean" else None
    chosen = pooling.readout if pooling else readout
    texts, longest = (pooling.texts(job["evaluated"]), pooling.longest) if pooling else (job["evaluated"], 0)
    inputs = prepare_task_batches(origin, shapes, texts, chosen, drift, longest)
    return source, replace(inputs, notes={**inputs.notes, "pooling": pooling.note}) if pooling else inputs, {}


def _marked(job: Job, origin: InputSource, source: Source, shapes: Sequence[Shape]) -> Prepared:
    if MARKED_LAYERS not in describe(job["backend"]).outputs:
        raise Unsupported(f"backend={job['backend']} returns only the last output; use a backend that marks layers")
    check_named_layers(read_config(origin.folder), "suite=layers")
    onnx, (begin, size) = export_onnx(origin.folder, origin.identity, origin.cache), job["chunk"]
    points = marked_points(onnx)
    chunk = points[begin : begin + size]
    inputs = prepare_marked(origin, onnx, chunk, shapes[-1])
    marked = replace(source, onnx=source.onnx and mark_onnx(source.onnx, chunk, origin.cache), marked=tuple(chunk))
    return marked, inputs, {"points": len(points)}


def _requests(job: Job, origin: InputSource, source: Source, shapes: Sequence[Shape]) -> Prepared:
    requested = [Shape(batch, sequence) for batch, sequence in job["asked"]]
    return source, prepare_request_sets(origin, requested, shapes), {}


INPUTS: Mapping[str, Callable[[Job, InputSource, Source, Sequence[Shape]], Prepared]] = {
    "latency": _batches,
    "accuracy": _texts,
    "layers": _marked,
    "switching": _requests,
}
"""Functions by suite. Each takes the job (suites/worker.py), the origin of inputs, the source and the shapes to run."""
