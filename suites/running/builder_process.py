"""A worker whose builder starts while the export runs; the launcher's side of suites/running/builder_job.py."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import replace

from backends.json_codec import to_json
from backends.registry import describe
from suites.asking.request import Request
from suites.records.record import TIMEOUT
from suites.running.builder_job import BUILD, DESCRIPTOR, LOCK, TAKEN, BuilderJob
from suites.running.engine_notes import engine_key, is_noted
from suites.running.job import A, Job
from suites.running.launch import Answer, Interpreter, WorkerProcess


def starts_early(request: Request) -> bool:
    """Return whether the builder starts during the export: it takes long to start, and the cache has no such engine.

    A suite that compares builds starts each builder on its own, so that its seconds do not depend on an export.
    """
    compares = request.until == "measure" and request.question.build_round() is not None
    return (
        describe(request.backend).starts_builder
        and request.until != "export"
        and not compares
        and not is_noted(request.cache, engine_key(request))
    )


class BuilderProcess:
    """Worker whose builder starts now. `end` must be called.

    Attributes:
        lock: file that is locked while the builder starts.

    Args:
        on_progress: as in suites/running/launch.py. Before the build it is called only with lines that stay visible,
            because another stage runs.
    """

    def __init__(self, job: BuilderJob, interpreter: Interpreter, on_progress: Callable[[str, bool], None]) -> None:
        self._folder, self._on_progress, self._building = job.folder, on_progress, False
        self.lock = job.folder / LOCK
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / TAKEN).unlink(missing_ok=True)
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            given = replace(interpreter, environment={**interpreter.environment, DESCRIPTOR: str(descriptor)})
            self._worker = WorkerProcess(job, job.folder, given, self._progress, descriptor)
        finally:
            os.close(descriptor)

    def build(self, job: Job[A], limit_s: float) -> Answer[A] | None:
        """Send a build and return its answer; see `call`. None if the worker ended before it took the build."""
        (self._folder / BUILD).write_text(json.dumps(to_json(job)), encoding="utf-8")
        self._building = True
        self._worker.send()
        answer = self._worker.finish(job, limit_s)
        return answer if (self._folder / TAKEN).exists() or answer.outcome == TIMEOUT else None

    def end(self) -> None:
        """End the worker, if it has not ended yet."""
        self._worker.end()

    def _progress(self, text: str, keep: bool) -> None:
        if keep or self._building:
            self._on_progress(text, keep)
