"""The jobs of all stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suites.running.builder_job import BuilderJob
from suites.running.deploy_job import DeployJob, SampleJob
from suites.running.job import BuildJob, ExportJob, Job, LocateJob, MeasureJob, ProbeJob, ScoreJob, StartJob

JOBS: Mapping[str, type[Job[Any]]] = {
    job.stage: job
    for job in (
        LocateJob,
        ProbeJob,
        ExportJob,
        BuilderJob,
        BuildJob,
        MeasureJob,
        StartJob,
        ScoreJob,
        SampleJob,
        DeployJob,
    )
}
"""The type of job of each stage."""
