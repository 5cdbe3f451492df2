"""How fast are the products, copies and launches of this machine?"""

from __future__ import annotations

from dataclasses import dataclass

from suites.ceilings.result import RESULT
from suites.suite import Question, SuiteDescription


@dataclass(frozen=True)
class CeilingsQuestion(Question):
    """Rows of the square matrices, and the size of each copied array in MiB."""

    sizes: tuple[int, ...]
    megabytes: int


SUITE = SuiteDescription(
    timed=True,
    question=CeilingsQuestion,
    result=RESULT,
    settings={"warm_up_s": 1.0, "seconds": 0.5, "min_samples": 10, "max_samples": 200},
)
