"""Estimate of the time and the memory of a cell, from records of the same or of similar cells."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from suites.asking.request import Request
from suites.planning.past_runs import PastRuns
from suites.records.record import OK, Record

REQUIRED = ("suite", "backend", "device")
"""Fields of a cell that a record must share to count at all."""

COMPARED = ("model", "precision", "shapes", "weights", "model_version", "lengths", "options")
"""Fields that make a record more similar, the most important first."""


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a cell.

    Attributes:
        setup_s: probe, export and score, in seconds.
        build_s: build of the engine or file, in seconds.
        cached_build_s: the build stage if the cache has the engine, in seconds.
        process_s: one measuring process, in seconds.
        memory_bytes: largest memory: of the device on a GPU, of the process on a CPU; None if unknown.
        machine: machine of the records.
        same_cell: whether the records are of this cell, except for its release.
    """

    setup_s: float
    build_s: float
    cached_build_s: float
    process_s: float
    memory_bytes: int | None
    machine: str
    same_cell: bool

    def first_s(self, until: str, built: bool) -> float:
        """Return the seconds until the first process has ended, or until the last stage `until`."""
        if until == "export":
            return self.setup_s
        build = self.cached_build_s if built else self.build_s
        return self.setup_s + build + (self.process_s if until == "measure" else 0.0)


def estimate(request: Request, past: PastRuns) -> Estimate | None:
    """Return the estimate from the first machine with similar records; None if there is no such record."""
    for machine, records in past.sources(request.suite):
        if similar := most_similar(request.cell, [record for record in records if record.outcome == OK]):
            same = is_same_cell(request.cell, similar[0])
            return _of_records(request, similar, machine, same)
    return None


def most_similar(cell: Mapping[str, object], records: Sequence[Record]) -> list[Record]:
    """Return the records that are most similar to a cell; [] if none has its suite, backend and kind of device."""
    wanted = json_value(cell)
    likeness: dict[tuple[bool, ...], list[Record]] = {}
    for record in records:
        if all(getattr(record.cell, name) == wanted[name] for name in REQUIRED):
            past = json_value(record.cell.to_json())
            likeness.setdefault(tuple(past[name] == wanted[name] for name in COMPARED), []).append(record)
    return likeness[max(likeness)] if likeness else []


def is_same_cell(cell: Mapping[str, object], record: Record, release: str | None = None) -> bool:
    """Return whether a record is of a cell.

    Args:
        cell: the fields of the cell. An empty `model_version` is unknown and fits each version.
        release: of the backend; None if it is unknown.
    """
    if any(getattr(record.cell, name) != cell[name] for name in (*REQUIRED, "precision")):
        return False
    wanted, past = json_value(cell), json_value(record.cell.to_json())
    if release is not None and past["release"] != release:
        return False
    return all(past[name] == value for name, value in wanted.items() if value or name != "model_version")


def json_value(value: Mapping[str, object]) -> Mapping[str, object]:
    """Return a mapping as it is after it was written to JSON and read again."""
    converted: Mapping[str, object] = json.loads(json.dumps(value))
    return converted


def _of_records(request: Request, records: Sequence[Record], machine: str, same: bool) -> Estimate:
    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    stages = [record.stages for record in records]
    cached = [float(stage.get("build", 0.0)) for stage in stages]
    built = [_build_seconds(record) for record in records]
    memory = [size for record in records if (size := memory_of(record)) is not None]
    return Estimate(
        setup_s=median([sum(stage.get(name, 0.0) for name in ("probe", "export", "score")) for stage in stages]),
        build_s=median([max(stage, seconds) for stage, seconds in zip(cached, built, strict=True)]),
        cached_build_s=median([min(stage, 2.0) for stage in cached]),
        process_s=median([process_seconds(record, request) for record in records]),
        memory_bytes=max(memory, default=None),
        machine=machine,
        same_cell=same,
    )


def _build_seconds(record: Record) -> float:
    """Return the seconds of the build, without those of a builder that started during the export."""
    seconds = record.artifacts.built and record.artifacts.built.seconds
    return _number(seconds) - _number(record.artifacts.built_notes.started_early_s)


def process_seconds(record: Record, request: Request) -> float:
    """Return the expected seconds of one measuring process of a request, from a record.

    The part of the process that samples is scaled by the numbers of shapes and by the seconds per sample series. The
    rest (imports, loading) stays.
    """
    total = float(record.stages.get("measure", 0.0)) + float(record.stages.get("start", 0.0))
    first = [window for item in record.measurements if item.process == 0 for window in item.windows]
    sampling = (max(end for _, end, _ in first) - min(start for start, _, _ in first)) / 1e9 if first else 0.0
    processes = 1 + len(record.processes)
    # `stages` of a record covers all its processes, or only the last one if another command added that process.
    process = total / processes if total / processes >= sampling else total
    sampling = min(sampling, process)
    return process - sampling + sampling * _scale(record, request)


def _scale(record: Record, request: Request) -> float:
    shapes = len(request.cell["shapes"]) / max(1, len(record.cell.shapes))
    past = sum(_number(getattr(record.settings, name)) for name in ("warm_up_s", "seconds"))
    now = request.effort.warm_up_s + request.effort.seconds
    return shapes * (now / past if past else 1.0)


def memory_of(record: Record) -> int | None:
    """Return the largest memory in bytes: of the device if telemetry has it, else of the process; None if unknown."""
    device = [item.telemetry.memory_bytes for item in record.measurements if item.telemetry.memory_bytes]
    host = [facts.peak_host_bytes for facts in record.facts.shapes.values() if facts.peak_host_bytes]
    found = [size for size in map(_number, device or host) if size]
    return int(max(found)) if found else None


def _number(value: object) -> float:
    """Return a value of a record that is not checked when it is read; 0 if it is not a number."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
