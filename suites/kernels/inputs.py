"""Inputs of suite=kernels: one batch of each shape, as for suite=latency."""

from __future__ import annotations

from backends.base import Source
from backends.inputs.batches import InputSource, prepare_inputs
from suites.running.job import ExportJob
from suites.running.prepared import Prepared


def prepare(job: ExportJob, origin: InputSource, source: Source) -> Prepared:
    return Prepared(source, prepare_inputs(origin, job.spec.shapes), job.spec.shapes)
