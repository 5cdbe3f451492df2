"""Survey of one backend, in the backend's interpreter: `python -m suites.diagnosis.survey BACKEND`.

It reads JSON from standard input: {"device": a Device, "jobs": {precision: a ProbeJob}}. It writes one line of JSON to
standard output: {"findings": [...], "probed": {precision: {"outcome", "reason"}}}. With `export` instead of a backend,
it writes the packages that are missing for exports: {"missing": {kind of source: [name, ...]}}.

Needs CPython 3.10, the standard library and numpy, like a worker. All other output goes to standard error, because
native libraries print to standard output.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import TypedDict

from backends.base import Device
from backends.description import SourceKind
from backends.export_packages import missing_packages
from backends.finding import MISSING, Finding
from backends.json_codec import from_json
from backends.registry import load_backend
from suites.running.job import ProbeJob
from suites.schema.refusals import first_line
from suites.worker import probe

EXPORT = "export"


class Given(TypedDict):
    """JSON on standard input: a device, and a job by precision."""

    device: object
    jobs: dict[str, object]


def survey(backend: str, data: Given) -> dict[str, object]:
    """Return the findings of a backend and whether it can run each job."""
    probed = {precision: _probed(job) for precision, job in data["jobs"].items()}
    try:
        found = load_backend(backend).findings(from_json(Device, data["device"], "device"))
    except Exception as error:  # a library that is installed but broken can raise any exception
        found = (Finding(backend, MISSING, f"cannot be used: {first_line(error)}"),)
    return {"findings": [dataclasses.asdict(finding) for finding in found], "probed": probed}


def _probed(data: object) -> dict[str, str]:
    try:
        answer = probe(from_json(ProbeJob, data, "job"))
        return {"outcome": answer.outcome, "reason": answer.reason}
    except Exception as error:
        return {"outcome": "failed", "reason": first_line(error)}


def main() -> None:
    """Write the survey to standard output."""
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if sys.argv[1] == EXPORT:
        answer: dict[str, object] = {"missing": {kind.name: missing_packages(kind) for kind in SourceKind}}
    else:
        answer = survey(sys.argv[1], json.load(sys.stdin))
    os.write(answers, f"{json.dumps(answer)}\n".encode())
    sys.stderr.flush()
    os._exit(0)  # some libraries crash when they are unloaded


if __name__ == "__main__":
    main()
