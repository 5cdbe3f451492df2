"""Rules of batches for a deployed model: those of its record of suite=serving, or defaults."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from backends.options import SharedKeys
from backends.registry import describe
from suites.exporting.cell_configuration import NOT_COMPARED, OTHER_OPTIONS
from suites.records.cell import Cell
from suites.records.record import OK, Record
from suites.records.results_folder import machine_folders
from suites.serving.result import SATURATED, ServingResult

DEFAULT_DELAY_US = 1000
"""Longest wait for other requests without a record of suite=serving: short against the latency of most models."""

DEFAULT_QUEUE = 1000

RANDOM = "random"
"""First word of `Cell.weights` if the weights are random."""

SERVING_SUITES = ("serving", "tritonserver")
"""Suites whose cells have rules of batches."""


@dataclass(frozen=True)
class BatchingRules:
    """Rules of batches, and where they come from.

    Attributes:
        delay_us: longest time that a request waits for others.
        most_requests: most requests of a batch; 0 for the largest built one.
        instances: number of sessions.
        queue: most requests that wait.
        pads_to_built: whether batches are padded to built shapes; None for the default of the backend.
        source: the origin of the rules in words.
    """

    delay_us: int = DEFAULT_DELAY_US
    most_requests: int = 0
    instances: int = 1
    queue: int = DEFAULT_QUEUE
    pads_to_built: bool | None = None
    source: str = "default"


def rules_for(record: Record, results: Path) -> BatchingRules:
    """Return the rules of a record of suite=serving, or of the best one of the same model, backend and machine.

    The best record has the highest load within its latency bound; among records without a bound, the highest
    throughput. Times do not depend on the values of weights, so records with random weights count too.

    Args:
        results: results folder that is searched.
    """
    if record.cell.suite in SERVING_SUITES:
        return _rules_of(record)
    known = [other for folder in machine_folders(results) if folder.name == record.environment.machine
             for other in folder.records("serving")]  # fmt: skip
    best = _best(other for other in known if _same_model(record.cell, other.cell) and other.outcome == OK)
    return _rules_of(best) if best else BatchingRules()


def as_latency(record: Record) -> Record:
    """Return a record of suite=serving as one of suite=latency: its cell without the rules of batches and the loads."""
    cell = record.cell
    if cell.suite not in SERVING_SUITES:
        return record
    own = [item.name for group in describe(cell.backend).groups.values() for item in fields(group)]
    known = {*own, *(item.name for item in fields(SharedKeys)), *NOT_COMPARED, *OTHER_OPTIONS}
    options = {name: value for name, value in cell.options.items() if name in known}
    return replace(record, cell=replace(cell, suite="latency", options=options))


def _same_model(cell: Cell, other: Cell) -> bool:
    names = ("model", "backend", "precision", "device")
    same_weights = cell.model_version == other.model_version or other.weights.startswith(RANDOM)
    return same_weights and all(getattr(cell, name) == getattr(other, name) for name in names)


def _best(records: Iterable[Record]) -> Record | None:
    return max(records, key=_carried_load, default=None)


def _carried_load(record: Record) -> tuple[float, float]:
    """Return the highest load within a latency bound, and the highest throughput, in requests per second."""
    result = record.result
    if not isinstance(result, ServingResult):
        return 0.0, 0.0
    saturated = max((point.achieved for point in result.points if point.purpose == SATURATED), default=0.0)
    return max((highest.load or 0.0 for highest in result.highest), default=0.0), saturated


def _rules_of(record: Record) -> BatchingRules:
    options = record.cell.options
    return BatchingRules(
        delay_us=round(1000 * float(options.get("wait_ms", 0.0))),
        most_requests=int(options.get("most_requests", 0)),
        instances=int(options.get("workers", 1)),
        queue=int(options.get("queue", DEFAULT_QUEUE)),
        pads_to_built=options.get("padded_to") == "built",
        source=record.cell.id,
    )
