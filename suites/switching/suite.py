"""How much does a change of shape cost, and which strategy serves a trace of requests best?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backends.base import Shape
from suites.suite import Question, SuiteDescription

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


SUITE = SuiteDescription(
    timed=True,
    question=SwitchingQuestion,
    settings={"tolerance": 0.05},
)
