"""Inputs of suite=ceilings: none, because the session makes its own operands."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backends.base import Artifact, versions_of
from backends.cache import ArtifactCache
from suites.running.job import ExportJob


def prepare_null(job: ExportJob) -> Artifact:
    """Return an .npz file without arrays."""

    def build(path: Path) -> None:
        np.savez(path)

    return ArtifactCache(job.spec.cache).get("inputs", {"none": True}, "inputs.npz", build, versions_of(("numpy",)))
