"""How fast is a step on a share of the SMs, and what do two clients of one GPU cost each other?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from suites.limits.result import RESULT, LimitsResult
from suites.suite import Question, Result, SuiteDescription


@dataclass(frozen=True)
class LimitsQuestion(Question):
    """Green contexts measure all shares in one process. MPS limits a whole process, so each share is a round.

    Attributes:
        method: name of a LimitMethod.
        shares: of the compute units, ascending.
        sharing: whether two clients are measured alone and together.
        number: of the round, from 0.
    """

    method: str
    shares: tuple[float, ...]
    sharing: bool = False
    number: int = 0

    @property
    def of_round(self) -> tuple[float, ...]:
        """The shares that this round measures."""
        return (self.shares[self.number],) if self.limits_process else self.shares

    @property
    def limits_process(self) -> bool:
        return self.method == "mps"

    @property
    def keeps_first(self) -> bool:
        return self.limits_process

    def following(self, points: int) -> LimitsQuestion | None:
        number = self.number + 1
        return replace(self, number=number) if self.limits_process and number < len(self.shares) else None


def joined(results: Sequence[Result]) -> Result:
    """Return one result with the times of all rounds."""
    found = [result for result in results if isinstance(result, LimitsResult)]
    return replace(found[0], times=tuple(times for result in found for times in result.times))


SUITE = SuiteDescription(
    timed=True,
    question=LimitsQuestion,
    result=RESULT,
    joined=joined,
    settings={"warm_up_s": 1.0, "seconds": 0.5, "max_samples": 500},
)
