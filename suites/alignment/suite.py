"""How much time do batch sizes, sequence lengths and model sizes take that are no multiples of 8, 16, 32 or 64?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from backends.base import Shape
from suites.alignment.result import RESULT, Sweep
from suites.suite import Question, SuiteDescription


@dataclass(frozen=True)
class TimedRun:
    """A shape to measure, without padding or with one padding token in each sequence."""

    shape: Shape
    padded: bool = False


@dataclass(frozen=True)
class AlignmentQuestion(Question):
    """The sizes around each centre, the shapes that they need, ascending, and whether the backend removes padding."""

    sweeps: tuple[Sweep, ...]
    runs: tuple[TimedRun, ...]
    removes_padding: bool


SUITE = SuiteDescription(
    timed=True,
    question=AlignmentQuestion,
    result=RESULT,
    settings={"warm_up_s": 0.2, "seconds": 0.1, "min_samples": 10, "max_samples": 200},
)
