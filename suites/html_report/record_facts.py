"""Fields of records that the page shows. No other module of this folder reads the inside of a record."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from suites.cli.cell_commands import command_of_cell
from suites.latency.figures import LatencyRow
from suites.layers.result import LayersResult
from suites.records.record import OK, Record
from suites.tables.markdown import machine_title

Json = Mapping[str, object]
"""An object of the JSON in the page."""


@dataclass(frozen=True)
class LayerError:
    """Difference of one marked output from FP32. `relative` is None if the output is not finite."""

    name: str
    relative: float | None


@dataclass(frozen=True)
class LayerErrors:
    """Differences of the marked outputs of a record, in the order of the model.

    Attributes:
        threshold: relative error above which an output differs from FP32.
        first: name of the first output above the threshold; empty if there is none.
    """

    points: Sequence[LayerError]
    threshold: float
    first: str


def rounded(value: float | None, unit: float = 1.0, digits: int = 6) -> float | None:
    """Return a figure in another unit with `digits` significant digits; None if there is no finite figure."""
    return None if value is None or not math.isfinite(value) else float(f"{value / unit:.{digits}g}")


def record_entry(record: Record) -> Json:
    """Return the identity of a record and the command that repeats it."""
    cell = record.cell
    return {
        "id": cell.id,
        "suite": cell.suite,
        "machine": machine_title(record),
        "model": cell.model,
        "backend": cell.backend,
        "precision": cell.precision,
        "release": cell.release,
        "command": shlex.join(command_of_cell(record.command, cell)),
        "measured": record.measured_at,
        "reason": "" if record.outcome == OK else f"{record.outcome}: {record.reason}",
    }


def layer_errors(record: Record) -> LayerErrors:
    """Return the errors of a record of suite=layers."""
    result = record.result
    assert isinstance(result, LayersResult)
    points = [
        LayerError(
            layer.point, None if layer.errors is None or layer.nonfinite else rounded(layer.errors.relative_error)
        )
        for layer in result.layers
    ]
    return LayerErrors(points, result.threshold or 0.0, result.first)


def task_differences(row: LatencyRow) -> Mapping[str, Sequence[float | None]]:
    """Return the difference from FP32 and the ends of its interval for each task with a score."""
    return {
        f"{task}, {figures.metric}": [rounded(value) for value in (figures.difference, figures.low, figures.high)]
        for task, scores in row.tasks.items()
        if scores.result is not None and (figures := scores.result.figures) is not None
    }
