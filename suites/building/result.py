"""Result of suite=building: the cost of each build, and the latency and output of its engine."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from backends.json_part import Part, optional
from suites.suite import Result

FIRST, MEASURED_AGAIN, BUILT_AGAIN, SAVED_TIMINGS, OPTION, PROFILES = (
    "first", "measured again", "built again", "saved timings", "option", "profiles",
)  # fmt: skip
"""Kinds of rounds. FIRST builds with the options of the cell and no timings. MEASURED_AGAIN runs the same engine in
another process. BUILT_AGAIN repeats the first build. SAVED_TIMINGS builds with the timings of the first build. OPTION
changes one option, and PROFILES the number of profiles; both start without timings."""

COLD = (FIRST, BUILT_AGAIN, OPTION)
"""Kinds of builds of the same profile without timings, whose costs are compared."""


@dataclass(frozen=True)
class Engine(Part):
    """A built engine, measured in one process.

    Attributes:
        seconds: wall time of the build.
        engine_bytes: size of the file.
        plan: digest of the file.
        profiles: number of optimization profiles.
        samples: times of one step in ns, at the largest shape, on the GPU with a CUDA graph if there is one.
        steady: whether the warm-up became steady before its time limit.
        output: digest of the output at the largest shape, before the timing.
        cosine: of the output and the FP32 reference; None if the output is not finite.
        tactics: tactic of each layer; only during the run, and in the first engine.
        layers: number of layers.
        other_tactics: number of layers whose tactic is not that of the first engine; None if tactics are not known.
        examples: some of these layers.
    """

    seconds: float
    engine_bytes: int
    plan: str
    profiles: int
    samples: tuple[int, ...]
    steady: bool
    output: str
    cosine: float | None
    tactics: tuple[str, ...] = ()
    layers: int = 0
    other_tactics: int | None = None
    examples: tuple[str, ...] = ()

    @property
    def milliseconds(self) -> float:
        """Median time of one step."""
        return statistics.median(self.samples) / 1e6


@dataclass(frozen=True)
class Build(Part):
    """One round.

    Attributes:
        kind: one of the kinds above.
        setting: the changed option as typed on the command line, or the number of profiles; empty without a change.
        engine: None if the round did not end well.
        outcome, reason: why there is no engine.
    """

    json_flat: ClassVar[Mapping[str, type[Part]]] = {"engine": Engine}

    kind: str
    setting: str = ""
    engine: Engine | None = None
    outcome: str = optional("")
    reason: str = optional("")


@dataclass(frozen=True)
class BuildingResult(Result):
    """All rounds, in order."""

    builds: tuple[Build, ...]


RESULT = BuildingResult
