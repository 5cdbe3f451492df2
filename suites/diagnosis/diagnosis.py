"""All checks of a machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from backends.base import Device
from backends.finding import MISSING, Finding
from backends.registry import descriptions
from suites.diagnosis.hardware_checks import hardware
from suites.diagnosis.interpreter_checks import Python, check_interpreters
from suites.diagnosis.place_checks import folder_checks, hub_check
from suites.diagnosis.query_interpreter import Query
from suites.diagnosis.runnable import Runnable, missing_for_exports, runnable
from suites.measuring.machine import Machine, cpu
from suites.schema.refusals import Refused


@dataclass(frozen=True)
class Settings:
    """Settings of a diagnosis.

    Attributes:
        interpreters: path by key of the group `interpreter`; the key "main" is first.
        folders: value of results= and of cache=, by key.
        limit_s: time limit of each process in seconds.
        hub_limit_s: time limit of the access to the hub in seconds.
    """

    interpreters: Mapping[str, str]
    folders: Mapping[str, str]
    limit_s: float = 120.0
    hub_limit_s: float = 5.0


@dataclass(frozen=True)
class Diagnosis:
    """Findings in the order of the report, and the answers of the backends."""

    findings: Sequence[Finding]
    backends: Sequence[Runnable] = ()

    @property
    def can_run(self) -> bool:
        """Whether at least one backend that runs a model can run in one precision."""
        return any(backend.runs and backend.has_model for backend in self.backends)


def diagnose(settings: Settings, first: Finding | None = None) -> Diagnosis:
    """Run all checks. No check raises an exception, and no check writes a file in the folders of the user.

    Args:
        first: a finding of the caller, for the report.
    """
    query = Query(settings.limit_s)
    findings, gpus = hardware()
    pythons = check_interpreters(settings.interpreters, query)
    findings += [*([first] if first else []), *(python.finding for python in pythons)]
    answers, about_libraries = _backends(pythons, [*gpus, _cpu()], query)
    findings += about_libraries
    for key, given in settings.folders.items():
        findings += folder_checks(key, given)
    findings.append(hub_check(settings.hub_limit_s))
    return Diagnosis(findings, answers)


def _backends(
    pythons: Sequence[Python], machines: Sequence[Machine], query: Query
) -> tuple[list[Runnable], list[Finding]]:
    """Return the answer of each backend, and the findings about their libraries."""
    try:
        described = descriptions()
    except Refused as reason:
        return [], [Finding("backends", MISSING, str(reason))]
    paths = {python.key: python.path for python in pythons}
    missing, about_exports = missing_for_exports(paths.get("main", ""), query)
    answers, findings = [], [about_exports]
    for backend in described.values():
        answer = runnable(backend, paths.get(backend.interpreter.key, ""), machines, missing, query)
        answers.append(answer)
        several = len({path for path in paths.values() if path}) > 1
        place = f" ({backend.interpreter.key})" if several else ""
        findings += [replace(finding, name=f"{finding.name}{place}") for finding in answer.findings]
    return answers, list(_without_repeats(findings))


def _without_repeats(findings: Iterable[Finding]) -> Iterable[Finding]:
    """Return each finding once: several backends report the same library."""
    return dict.fromkeys(findings)


def _cpu() -> Machine:
    try:
        return cpu()
    except Exception:
        return Machine(Device(), "cpu")
