"""The part of a request that a suite adds. Each suite has it in suites/NAME/request.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backends.base import Shape
from backends.description import SourceKind
from backends.inputs.lengths import Lengths
from backends.registry import describe
from suites.schema.config import RunConfig
from suites.schema.refusals import Refused
from suites.suite import Question
from suites.tasks.task import Task


@dataclass(frozen=True)
class RequestContext:
    """The resolved configuration that a suite's request depends on.

    Attributes:
        shapes: the shapes of the command line.
        positions: the longest sequence of the model.
    """

    config: RunConfig
    shapes: tuple[Shape, ...]
    lengths: Lengths
    positions: int
    task: Task


@dataclass(frozen=True)
class SuiteRequest:
    """The additions of a suite.

    Attributes:
        shapes: the shapes of the cell.
        built_shapes: the shapes that are built and run.
        question: the suite's own part of jobs.
        lengths, options: further keys of these parts of the cell.
        output: the only kind of output that the suite or its task can use; empty for any.
        effort: seconds of the suite's own measurements, fields of Effort in suites/measuring/clock.py.
    """

    shapes: tuple[Shape, ...]
    built_shapes: tuple[Shape, ...]
    question: Question = field(default_factory=Question)
    lengths: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    output: str = ""
    effort: Mapping[str, float] = field(default_factory=dict)


def require_model(config: RunConfig) -> None:
    """Refuse a backend that runs no model."""
    if describe(config.backend).source is SourceKind.none:
        raise Refused(
            f"backend={config.backend} runs no model; suite={config.suite.name} needs a backend that runs a model"
        )
