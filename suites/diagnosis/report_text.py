"""The report of a diagnosis: text in at most 80 columns, or JSON."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Sequence

from backends.finding import OK, Finding
from suites.diagnosis.diagnosis import Diagnosis
from suites.diagnosis.runnable import Runnable
from suites.text import one_line

WIDTH, STATUS, NAME = 80, 9, 18
LONGEST = 400


def report_text(diagnosis: Diagnosis) -> str:
    """Return one line for each check, with its fix below it, and the table of backends and precisions."""
    lines = [line for finding in diagnosis.findings for line in finding_lines(finding)]
    return "\n".join([*lines, "", *_table(diagnosis.backends), "", _verdict(diagnosis)])


def report_json(diagnosis: Diagnosis) -> str:
    """Return the report as a JSON object: checks, backends by name, and can_run."""
    backends = {
        backend.backend: {
            "device": backend.device,
            "runs_a_model": backend.has_model,
            "precisions": {
                name: {"runs": not reason, "reason": reason} for name, reason in backend.reasons.items()
            },
        }
        for backend in diagnosis.backends
    }  # fmt: skip
    checks = [dataclasses.asdict(finding) for finding in diagnosis.findings]
    return json.dumps({"checks": checks, "backends": backends, "can_run": diagnosis.can_run}, indent=1)


def finding_lines(finding: Finding) -> Iterator[str]:
    """Yield the lines of a check. A command is never broken into lines, so that it can be copied."""
    first = f"{finding.status:<{STATUS}}{finding.name:<{NAME}}"
    indent = " " * (STATUS + NAME)
    # A name that is too long gets its own line.
    if len(first) > len(indent):
        yield first
        first = indent
    yield from textwrap.wrap(
        one_line(finding.text, LONGEST), WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
    ) or [first.rstrip()]
    if finding.fix and finding.status != OK:
        yield f"{' ' * STATUS}fix: {one_line(finding.fix, LONGEST)}"


def _table(backends: Sequence[Runnable]) -> Iterator[str]:
    if not backends:
        return
    precisions = list(backends[0].reasons)
    names = [backend.backend for backend in backends]
    width = max(map(len, ("backend", *names)))
    yield f"{'backend':<{width}}  device  {'  '.join(f'{name:<4}' for name in precisions)}".rstrip()
    for backend in backends:
        cells = "  ".join(f"{'no' if backend.reasons[name] else 'yes':<4}" for name in precisions)
        yield f"{backend.backend:<{width}}  {backend.device or 'none':<6}  {cells}".rstrip()
    yield ""
    for backend in backends:
        for reason, refused in _by_reason(backend).items():
            which = "all precisions" if len(refused) == len(precisions) else ", ".join(refused)
            yield from textwrap.wrap(
                f"{backend.backend} {which}: {one_line(reason, LONGEST)}",
                WIDTH,
                subsequent_indent="  ",
                break_on_hyphens=False,
            )


def _by_reason(backend: Runnable) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for precision, reason in backend.reasons.items():
        if reason:
            grouped.setdefault(reason, []).append(precision)
    return grouped


def _verdict(diagnosis: Diagnosis) -> str:
    able = [backend.backend for backend in diagnosis.backends if backend.runs and backend.has_model]
    text = f"can run: {', '.join(able)}" if able else "no backend can run; correct the checks that are missing"
    return textwrap.fill(text, WIDTH)
