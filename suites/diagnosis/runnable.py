"""Backends and precisions that can run on this machine, by the check of each backend in its interpreter."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from backends.base import BuildSpec, Shape
from backends.description import BackendDescription, SourceKind
from backends.finding import MISSING, WARNING, Finding
from backends.json_codec import NotThisType, from_json, to_json
from backends.quantization_options import QuantizationOptions
from suites.asking.request import quantizes
from suites.asking.resolve_options import backend_options, quantization_of
from suites.diagnosis.query_interpreter import NoAnswer, Query
from suites.diagnosis.survey import EXPORT
from suites.measuring.machine import Machine
from suites.records.record import OK
from suites.running.job import ProbeJob
from suites.schema.enums import Precision
from suites.schema.refusals import Refused
from suites.schema.run_schema import run_schema

SURVEY = ("-m", "suites.diagnosis.survey")
SHAPE = Shape(1, 128)


@dataclass(frozen=True)
class Runnable:
    """Answer of one backend.

    Attributes:
        device: "cuda" or "cpu"; "" if the machine has no device for it.
        reasons: by precision, why it cannot run; "" if it can.
        has_model: whether it runs a model; a test backend does not.
        findings: findings about its library.
    """

    backend: str
    device: str
    reasons: Mapping[str, str]
    has_model: bool
    findings: Sequence[Finding] = ()

    @property
    def runs(self) -> bool:
        return any(not reason for reason in self.reasons.values())


def missing_for_exports(python: str, query: Query) -> tuple[Mapping[str, Sequence[str]], Finding]:
    """Return the packages that `python` lacks for exports, by name of a SourceKind, and the finding.

    Args:
        python: path of the main interpreter; "" if it cannot be used.
    """
    if not python:
        everything = {kind.name: ["a usable interpreter.main"] for kind in SourceKind if kind is not SourceKind.none}
        return everything, Finding("export", MISSING, "interpreter.main cannot be used")
    try:
        answer = query(python, [*SURVEY, EXPORT])
        missing = from_json(Mapping[str, list[str]], answer["missing"], "missing")
        names = sorted({name for listed in missing.values() for name in listed})
    except (NoAnswer, KeyError, NotThisType) as reason:
        everything = {kind.name: ["a usable interpreter.main"] for kind in SourceKind if kind is not SourceKind.none}
        return everything, Finding("export", MISSING, f"{python}: {reason}")
    if names:
        fix = f"{python} -m pip install {' '.join(names)}"
        return missing, Finding("export", MISSING, f"interpreter.main lacks {', '.join(names)}", fix)
    return missing, Finding("export", "ok", "interpreter.main has all packages that export models")


def runnable(
    backend: BackendDescription,
    python: str,
    machines: Sequence[Machine],
    missing: Mapping[str, Sequence[str]],
    query: Query,
) -> Runnable:
    """Return which precisions a backend can run, on the first device on which it can run one.

    Args:
        python: path of its interpreter; "" if it cannot be used.
        machines: the GPUs and the CPU of this machine, the first choice first.
        missing: packages that exports lack, by name of a SourceKind.
    """
    usable = {item.device.kind: item for item in reversed(machines) if item.device.kind in backend.devices}
    order = [usable[kind] for kind in dict.fromkeys(item.device.kind for item in machines) if kind in usable]
    if not order:
        failure = f"needs a device of kind {' or '.join(backend.devices)}, and none is visible here"
        answer = _survey(backend, python, machines[-1], query)[0] if python else {}
        return _answered(backend, "", answer, failure)
    lacking = missing.get(backend.source.name)
    results = []
    for machine in order:
        if not python:
            answer, failure = {}, f"interpreter.{backend.interpreter.key} cannot be used"
        else:
            answer, failure = _survey(backend, python, machine, query)
        if lacking and not failure:
            failure = f"exports need {', '.join(lacking)}"
        results.append(_answered(backend, machine.device.kind, answer, failure))
        if results[-1].runs:
            findings = [finding for result in results for finding in result.findings]
            return replace(results[-1], findings=findings)
        if not python or lacking:
            break
    return results[0]


def _survey(backend: BackendDescription, python: str, machine: Machine, query: Query) -> tuple[dict[str, object], str]:
    """Return the answer of the backend in its interpreter, with the refusals of the request, and why there is none."""
    jobs, refused = _jobs(backend, machine)
    given = {"device": to_json(machine.device), "jobs": {name: to_json(job) for name, job in jobs.items()}}
    visible = {"CUDA_VISIBLE_DEVICES": machine.device.uuid if machine.device.kind == "cuda" else ""}
    try:
        answer = dict(query(python, [*SURVEY, backend.name], json.dumps(given), visible))
    except NoAnswer as reason:
        return {"refused": refused, "findings": [asdict(Finding(backend.name, MISSING, str(reason)))]}, str(reason)
    return {**answer, "refused": refused}, ""


def _answered(backend: BackendDescription, device: str, answer: Mapping[str, object], failure: str) -> Runnable:
    """Return the answer of a backend. `failure` is why it runs in no precision; "" if there is no such reason.

    A missing library is only a warning if the machine has no device for the backend.
    """
    findings = list(_findings(answer))
    if not device:
        findings = [replace(item, status=WARNING) if item.status == MISSING else item for item in findings]
    faults = [item.text for item in findings if item.status == MISSING]
    failure = failure or (faults[0] if faults else "")
    refused = from_json(Mapping[str, str], answer.get("refused", {}), "refused")
    reasons = {
        precision.name: refused.get(precision.name) or failure or _reason(answer, precision.name)
        for precision in Precision
    }
    return Runnable(backend.name, device, reasons, backend.source is not SourceKind.none, findings)


def _jobs(backend: BackendDescription, machine: Machine) -> tuple[dict[str, ProbeJob], dict[str, str]]:
    """Return the job by precision, with default options, and the refusals by precision."""
    jobs: dict[str, ProbeJob] = {}
    refused: dict[str, str] = {}
    for precision in Precision:
        try:
            config = run_schema()(backend=backend.name, precision=precision)
            options = backend_options(config)
            quantized = quantizes(backend, config)
            spec = BuildSpec(
                precision=precision.name,
                device=machine.device,
                shapes=(SHAPE,),
                cuda_graph=backend.cuda_graph and options.has_graphs(machine.device.kind),
                cache=Path(config.cache),
                options=options,
                quantization=quantization_of(config, machine) if quantized else QuantizationOptions(),
            )
            jobs[precision.name] = ProbeJob(backend.name, spec)
        except Refused as reason:
            refused[precision.name] = str(reason)
    return jobs, refused


def _reason(answer: Mapping[str, object], precision: str) -> str:
    probed = answer.get("probed")
    found = probed.get(precision) if isinstance(probed, Mapping) else None
    try:
        outcome = from_json(Mapping[str, str], found, precision)
        return "" if outcome["outcome"] == OK else outcome["reason"]
    except (KeyError, NotThisType):
        return "its interpreter gave no answer"


def _findings(answer: Mapping[str, object]) -> Iterator[Finding]:
    given = answer.get("findings")
    for data in given if isinstance(given, list) else ():
        with contextlib.suppress(TypeError):  # the interpreter may have printed anything
            yield Finding(**data)
