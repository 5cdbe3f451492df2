"""The measurement of a job once more, in a child process, which may be behind the command of a profiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from backends.base import Unavailable, Unsupported
from backends.json_codec import from_json, to_json
from suites.records.record import OK, UNAVAILABLE, UNSUPPORTED
from suites.running.job import MeasureJob
from suites.suite import Question, Result

OF_WORKER = ("SUITES_LAUNCHER", "SUITES_PROGRESS_FD")
"""Variables that only the worker itself may use: the child has another parent, and not its file descriptors."""

REFUSALS: Mapping[str, type[Exception]] = {UNAVAILABLE: Unavailable, UNSUPPORTED: Unsupported}
"""Exceptions by the outcome that they cause."""


def measure_behind(job: MeasureJob, question: Question, prefix: Sequence[str]) -> Result | None:
    """Run the measure stage of `job` with another question; its output goes to the log of this process.

    Args:
        prefix: words before the command of the process; may be empty.

    Returns:
        The result of the measurement; None if it has none.

    Raises:
        Unavailable, Unsupported: the process ended with this outcome.
        RuntimeError: the process failed. The message has its reason or its status.
    """
    started_by = f"behind {prefix[0]}" if prefix else "in a child process"
    with tempfile.TemporaryDirectory(prefix="observed_") as folder:
        (Path(folder) / "job.json").write_text(json.dumps(to_json(replace(job, question=question))), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if name not in OF_WORKER}
        command = [*prefix, sys.executable, "-m", "suites.worker", "measure", folder]
        status = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
        try:
            answer = json.loads((Path(folder) / "out.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            name = prefix[0] if prefix else "the child process"
            raise RuntimeError(f"{name} ended with status {status} before the step was measured") from None
    if answer["outcome"] in REFUSALS:
        raise REFUSALS[answer["outcome"]](answer["reason"])
    if answer["outcome"] != OK:
        raise RuntimeError(f"the step {started_by} failed: {answer['reason']}")
    return from_json(job.answer_type(), answer["result"], "result").result
