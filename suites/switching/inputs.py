"""Inputs of suite=switching: several batches for each shape of requests."""

from __future__ import annotations

from typing import cast

from backends.base import Artifact, Source
from backends.inputs.batches import InputSource
from backends.inputs.request_inputs import prepare_request_sets
from suites.running.job import ExportJob
from suites.running.null_inputs import null_request_sets
from suites.running.prepared import Prepared
from suites.switching.suite import SwitchingQuestion


def prepare(job: ExportJob, origin: InputSource, source: Source) -> Prepared:
    requested = cast(SwitchingQuestion, job.question).requested
    return Prepared(source, prepare_request_sets(origin, requested, job.spec.shapes))


def prepare_null(job: ExportJob) -> Artifact:
    return null_request_sets(job.spec.cache, cast(SwitchingQuestion, job.question).requested, job.spec.shapes)
