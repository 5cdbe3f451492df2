"""The job of a worker that starts a builder before the source of the build is known, and the worker's side of it.

The builder starts while the export runs in another process. The worker then waits for a line on standard input. After
it, the worker reads a BuildJob from the file BUILD in the folder of the job, and builds. It ends without an answer if
standard input ends first: the launcher has ended, or needs no build.

While the builder starts, the worker has a lock on the file LOCK, so that the export does not measure times at the same
time. The launcher takes the lock, and the worker inherits its descriptor. The kernel removes it if the worker ends.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from backends.base import Artifact, BuildSpec
from backends.json_codec import from_json
from backends.registry import load_backend
from suites.running.job import BackendJob, BuildJob

LOCK, BUILD, TAKEN = "starting.lock", "build.json", "taken"
"""Files in the folder of the job. The worker makes TAKEN when it begins the build."""

DESCRIPTOR = "SUITES_STARTING_FD"
"""Variable with the number of the descriptor of the lock."""


@dataclass(frozen=True)
class BuilderJob(BackendJob[Artifact]):
    """Start the backend's builder, wait, and build.

    Attributes:
        spec: of the build. The export may give other shapes and numbers of tokens.
        folder: the folder of the job.
    """

    stage: ClassVar[str] = "builder"
    answer: ClassVar[type] = Artifact

    backend: str
    spec: BuildSpec
    folder: Path


def build_when_sent(job: BuilderJob) -> Artifact:
    """Start the builder, and build when the launcher has sent the build.

    Raises:
        SystemExit: the launcher needs no build.
    """
    backend = load_backend(job.backend)
    backend.start_builder(job.spec)
    os.close(int(os.environ[DESCRIPTOR]))
    if not sys.stdin.buffer.readline():
        sys.exit()
    (job.folder / TAKEN).touch()
    build = from_json(BuildJob, json.loads((job.folder / BUILD).read_text(encoding="utf-8")), "job")
    return backend.build(build.spec, build.source)
