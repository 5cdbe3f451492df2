"""How much does a change of shape cost, and which strategy serves a trace of requests best?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from backends.base import Shape
from suites.suite import FirstUseCosts, Question, Result, SuiteDescription
from suites.switching.result import RESULT, ColdStart, SwitchingResult

Traffic = Mapping[str, tuple[tuple[tuple[int, ...], ...], ...]]
"""Traces by name: blocks of stretches of shapes, by index among the requested shapes."""


@dataclass(frozen=True)
class SwitchingQuestion(Question):
    """Requests, and how often each change of shape is measured.

    Attributes:
        requested: the shapes of requests.
        traffic: the traces to replay.
        repeats: visits of each ordered pair of shapes, at most.
        cold_starts: extra processes that measure the first request of each shape.
    """

    requested: tuple[Shape, ...]
    traffic: Traffic
    repeats: int
    cold_starts: int

    @property
    def starts(self) -> int:
        return self.cold_starts


def started(result: Result, starts: Sequence[FirstUseCosts]) -> Result:
    """Put the cold starts of the extra processes into a result."""
    assert isinstance(result, SwitchingResult)
    return replace(result, starts=tuple(start for start in starts if isinstance(start, ColdStart)))


SUITE = SuiteDescription(
    timed=True,
    question=SwitchingQuestion,
    result=RESULT,
    first_use=ColdStart,
    started=started,
    settings={"tolerance": 0.05},
)
