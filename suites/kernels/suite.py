"""Which classes of kernels take the time of a step?"""

from __future__ import annotations

from dataclasses import dataclass

from suites.kernels.result import RESULT
from suites.suite import Question, SuiteDescription

LIBRARY, REGION = "library", "region"
"""Values of `KernelsQuestion.profiler` besides the names of tools: the profiler of the backend's library, and the
process that a tool observes."""


@dataclass(frozen=True)
class KernelsQuestion(Question):
    """The profiler: LIBRARY, ncu, nsys or REGION."""

    profiler: str


SUITE = SuiteDescription(
    timed=True,
    profiles=True,
    question=KernelsQuestion,
    result=RESULT,
    settings={"warm_up_s": 1.0, "seconds": 0.5, "max_samples": 200},
)
