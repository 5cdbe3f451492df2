"""The fields that each suite adds to a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backends.description import SourceKind
from backends.registry import describe
from suites.records.cell import short_digest
from suites.schema.config import RunConfig
from suites.schema.enums import Suite, Weights
from suites.schema.refusals import Refused
from suites.switching.request import resolve_switching
from suites.tasks.task import Task

Shapes = list[list[int]]
"""[batch, sequence] of each shape."""


@dataclass(frozen=True)
class SuiteRequest:
    """Fields that a suite adds to a request.

    Attributes:
        shapes: shapes of the cell.
        held: shapes that are built and run.
        job: additional keys of the workers' job.
        lengths, options: additional keys of these fields of the cell.
        effort: additional fields of `Effort` (suites/measuring/clock.py).
    """

    shapes: Shapes
    held: Shapes
    job: Mapping[str, Any] = field(default_factory=dict)
    lengths: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    effort: Mapping[str, Any] = field(default_factory=dict)


def latency(config: RunConfig, shapes: Shapes, lengths: Mapping[str, Any], positions: int, task: Task) -> SuiteRequest:
    return SuiteRequest(shapes, shapes)


def accuracy(config: RunConfig, shapes: Shapes, lengths: Mapping[str, Any], positions: int, task: Task) -> SuiteRequest:
    """Add the texts of the task, and the digests of its texts and targets.

    Raises:
        Refused: the backend runs no model, or the task needs trained weights.
    """
    _runs_a_model(config)
    if config.weights is Weights.random and task.kind != "fidelity":
        raise Refused(f"task={config.task.name} needs trained weights; with weights=random use task=fidelity")
    judged = {"task": config.task.name, "evaluated": short_digest(list(task.texts))}
    if task.targets:
        judged["targets"] = short_digest(dict(task.targets))
    return SuiteRequest(shapes, shapes, {"evaluated": list(task.texts)}, judged)


def layers(config: RunConfig, shapes: Shapes, lengths: Mapping[str, Any], positions: int, task: Task) -> SuiteRequest:
    """Use only the largest shape, and add the number of outputs that are marked at a time."""
    _runs_a_model(config)
    chunk, largest = config.layers.chunk, shapes[-1:]
    return SuiteRequest(largest, largest, {"chunk": [0, chunk]}, options={"marked": chunk})


def switching(
    config: RunConfig, shapes: Shapes, lengths: Mapping[str, Any], positions: int, task: Task
) -> SuiteRequest:
    """Add the traffic. Its shapes may be padded to others, which are built and run."""
    resolved = resolve_switching(config, shapes, lengths, positions)
    traffic = {"traffic": short_digest(resolved.traffic), "repeats": resolved.repeats, "choice": resolved.choice}
    return SuiteRequest(
        shapes,
        resolved.built_shapes,
        {
            "asked": resolved.requested_shapes,
            "traffic": resolved.traffic,
            "repeats": resolved.repeats,
            "starts": config.suite.starts,
        },
        traffic,
        {"pad_to": resolved.built_shapes} if config.switching.pad_to else {},
        {name: getattr(config.suite, name) for name in ("pairs_s", "replay_s")},
    )


ASKED = {Suite.latency: latency, Suite.accuracy: accuracy, Suite.layers: layers, Suite.switching: switching}
"""Functions by suite. Each takes the configuration, the shapes of the command line, the lengths of
suites/asking/resolve_options.py, the number of positions of the model, and the task. It raises Refused if the suite
cannot run with them."""


def _runs_a_model(config: RunConfig) -> None:
    if describe(config.backend).source is SourceKind.none:
        suite = config.suite.name.name
        raise Refused(f"backend={config.backend} runs no model; suite={suite} needs a backend that runs a model")
