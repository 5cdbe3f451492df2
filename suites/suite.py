"""Suites describe themselves: a suite is a folder suites/NAME with a file suite.py that defines SUITE.

The other files of the folder have the same names in every suite, and `part` imports them when they are needed:

- request.py: `suite_request(context)`, which resolves the suite's own keys (suites/asking/suite_request.py).
- inputs.py: `prepare(job, origin, source)`, which makes the inputs in the interpreter with torch, and, for backends
  without a model, `prepare_null(job)`.
- measure.py: `measure(run, question)`, which runs in the measuring worker.
- result.py: RESULT, the dataclass of the suite's result; suite.py names it in the description.
- tables.py: TABLES, the tables of the suite's records; END_TABLES, if a run shall end with short tables; PLOTS, if
  the suite has plots.

Folders of other projects are found too if INFERENCE_SUITES_PATH names the folder that has suites/NAME (see
suites/__init__.py). Needs CPython 3.10 and the standard library alone: workers read descriptions.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import suites
from backends.compute_share import BuildLimit
from backends.json_part import Part
from backends.model_output import Output

if TYPE_CHECKING:
    from backends.base import Shape
    from backends.model.reference import ModelReference

FILE = "suite.py"


class BadSuite(Exception):
    """A suite's folder has no usable description; the message names the file."""


@dataclass(frozen=True)
class BuildRound:
    """The build of one round of a suite that compares builds.

    Attributes:
        options: options of the backend that differ from those of the cell, in JSON types.
        shapes: the shapes that the engine is built for; empty for those of the cell.
        cache: CELL for the cache of the cell, FIRST for the engine and the timings of the first round, EMPTY for a new
            cache without timings, TIMINGS for a new cache with the timings of the first round.
        title: the build in words, for the progress of the cell.
        limit: the compute units of the build; None for all.
    """

    options: Mapping[str, object]
    shapes: tuple[Shape, ...]
    cache: str
    title: str
    limit: BuildLimit | None = None


CELL, FIRST, EMPTY, TIMINGS = "cell", "first", "empty", "timings"
"""Values of `BuildRound.cache`."""


@dataclass(frozen=True)
class Question:
    """The part of a suite's jobs that only this suite has. A suite with such a part derives its own dataclass."""

    @property
    def starts(self) -> int:
        """Number of extra processes that measure first-use costs."""
        return 0

    def following(self, points: int) -> Question | None:
        """Return the question of the next round, or None after the last one.

        Args:
            points: number of points of the model that can be marked.
        """
        return None

    def model(self, model: ModelReference) -> ModelReference:
        """Return the model of this round, from the model of the cell."""
        return model

    @property
    def keeps_first(self) -> bool:
        """Whether the record has the artifacts and checks of the first round instead of those of the last one."""
        return self.build_round() is not None

    @property
    def joins_checks(self) -> bool:
        """Whether the record has the checks of all rounds instead of those of one round."""
        return False

    def build_round(self) -> BuildRound | None:
        """Return the build of this round, from the export of the first round; None to build as the cell says."""
        return None

    def failed(self, outcome: str, reason: str) -> Result | None:
        """Return the result of a round that did not end well; None if the cell then fails."""
        return None


@dataclass(frozen=True)
class Judging:
    """Standard by which the outputs of a cell are judged.

    Attributes:
        kind: name of a TaskKind.
        targets: JSON values for suites/tasks/scoring.py.
        tolerance: largest loss of the task's metric against FP32.
        threshold: relative error above which a layer counts as different from FP32.
    """

    kind: str
    targets: Mapping[str, object]
    tolerance: float
    threshold: float


@dataclass(frozen=True)
class Result(Part):
    """Result of a cell, in the field `scores` of its record. Each suite with a result derives its own dataclass."""


@dataclass(frozen=True)
class FirstUseCosts(Part):
    """First-use costs of one extra process. A suite with such processes derives its own dataclass."""


class DeviceReadings(Protocol):
    """Readings of the device during a measurement. Times are in ns, on the clock of suites/measuring/clock.py."""

    def energy_mj(self, start: int, end: int) -> float | None:
        """Return the energy of the device between two times in mJ; None if it is not known."""
        ...

    def busy_share(self, start: int, end: int) -> float | None:
        """Return the share of the time in which the device was busy; None if it is not known."""
        ...


def unobserved(result: Result, device: DeviceReadings) -> Result:
    """Return the result of a suite without figures of the device."""
    return result


def unchanged(result: Result, judging: Judging) -> Result:
    """Return the result of a suite that does not depend on a tolerance or threshold."""
    return result


def only(results: Sequence[Result]) -> Result:
    """Return the result of the only round."""
    return results[-1]


def without_starts(result: Result, starts: Sequence[FirstUseCosts]) -> Result:
    """Return the result of a suite without extra processes."""
    return result


@dataclass(frozen=True)
class ModelUse:
    """A model as a cell uses it.

    Attributes:
        backend: name of the backend.
        config: contents of its config.json, or the settings of random weights.
        output: the output that the cell requests.
    """

    backend: str
    config: Mapping[str, object]
    output: Output


def any_model(question: Question, use: ModelUse) -> None:
    """Accept every model."""


@dataclass(frozen=True)
class SuiteDescription:
    """Facts about a suite that other parts of the project need.

    Attributes:
        timed: whether its figures are times. A timed measurement needs the device for itself.
        repeats: whether it is measured in as many fresh processes as `repeats=` says; otherwise in one.
        splits_batches: whether it can run a batch in several passes (`lengths.passes`).
        profiles: whether it calls `Session.profile`, so that sessions are opened for it.
        judges_tasks: whether outputs are scored on a task.
        settings: defaults of the configuration group `suite` where they differ from the schema's.
        question: the dataclass of the suite's own part of jobs.
        result: the dataclass of the suite's result.
        first_use: the dataclass of the costs that one extra process measures.
        started: puts the costs of all extra processes into a result.
        observed: puts readings of the device into the result of a measuring process.
        joined: joins the results of all rounds, in order.
        judged: puts the tolerance or threshold into a result. It is also applied to a record that is reused.
        check_model: raises Unsupported for a model that the suite cannot measure.
    """

    timed: bool = False
    repeats: bool = False
    splits_batches: bool = False
    profiles: bool = False
    judges_tasks: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)
    question: type[Question] = Question
    result: type[Result] = Result
    first_use: type[FirstUseCosts] = FirstUseCosts
    started: Callable[[Result, Sequence[FirstUseCosts]], Result] = without_starts
    observed: Callable[[Result, DeviceReadings], Result] = unobserved
    joined: Callable[[Sequence[Result]], Result] = only
    judged: Callable[[Result, Judging], Result] = unchanged
    check_model: Callable[[Question, ModelUse], None] = any_model


@cache
def suite_names() -> tuple[str, ...]:
    """Return the names of all suites, sorted.

    Raises:
        BadSuite: two folders define the same suite.
    """
    folders: dict[str, Path] = {}
    for path in suites.__path__:
        for file in sorted(Path(path).glob(f"*/{FILE}")):
            name = file.parent.name
            if name in folders:
                raise BadSuite(f"{file}: the suite {name} is already defined in {folders[name]}")
            folders[name] = file
    return tuple(sorted(folders))


@cache
def load_suite(name: str) -> SuiteDescription:
    """Return the description of a suite.

    Raises:
        BadSuite: its suite.py cannot be imported, or does not define SUITE.
    """
    try:
        module = importlib.import_module(f"suites.{name}.suite")
    except (Exception, SystemExit) as error:  # The file may be of a third party.
        if not any((Path(path) / name).is_dir() for path in suites.__path__):
            raise
        line = " ".join(str(error).split())
        raise BadSuite(f"suites/{name}/{FILE} cannot be read: {type(error).__name__}: {line}") from error
    description = getattr(module, "SUITE", None)
    if not isinstance(description, SuiteDescription):
        raise BadSuite(f"{module.__file__} must define SUITE, a SuiteDescription")
    return description


def is_timed(name: str) -> bool:
    """Return whether the records of a suite have times; a search has none of its own."""
    return name in suite_names() and load_suite(name).timed


def part(name: str, file: str) -> ModuleType:
    """Import suites/NAME/FILE.py.

    Raises:
        BadSuite: the suite has no such file.
    """
    try:
        return importlib.import_module(f"suites.{name}.{file}")
    except ModuleNotFoundError as error:
        if error.name != f"suites.{name}.{file}":
            raise
        raise BadSuite(f"suites/{name} has no {file}.py") from None


def has_part(name: str, file: str) -> bool:
    """Return whether suites/NAME/FILE.py exists."""
    return importlib.util.find_spec(f"suites.{name}.{file}") is not None
