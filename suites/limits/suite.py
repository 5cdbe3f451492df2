"""How fast is a step on a share of the SMs, must its engine be built there, how much do clients slow each other?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from backends.compute_share import BuildLimit
from suites.limits.result import RESULT, EngineBuild, FailedShare, LimitsResult, LoadTimes
from suites.suite import CELL, BuildRound, Question, Result, SuiteDescription

LATENCY, THROUGHPUT, BOTH = 1, 2, 0
"""Number of a client: the one that needs a short latency, the one that needs throughput, and both in one process."""


@dataclass(frozen=True)
class LoadClient:
    """The part of one process in a measurement of two clients with loads.

    Attributes:
        number: LATENCY, THROUGHPUT or BOTH.
        share: of the compute units: of this client, or, for BOTH, of the first client; 0 without a limit.
        alone: whether each client is measured alone first.
        socket: path of the socket where the two processes wait for each other; empty for BOTH.
    """

    number: int
    share: float
    alone: bool = False
    socket: str = ""


@dataclass(frozen=True)
class LoadPlan:
    """Loads of two clients.

    Attributes:
        rate: requests per second of client 1; 0 for a client that waits for each answer.
        seconds: length of each phase.
        shares: of client 1; client 2 has the rest.
        seed: of the arrivals.
    """

    rate: float
    seconds: float
    shares: tuple[float, ...]
    seed: int = 0


@dataclass(frozen=True)
class LimitsRound:
    """One measuring process.

    Attributes:
        shares: at which steps are measured.
        built_share: the share that the engine is built on; 0 for the whole device.
        loads: whether two clients with loads are measured.
    """

    shares: tuple[float, ...] = ()
    built_share: float = 0.0
    loads: bool = False

    @property
    def title(self) -> str:
        if self.loads:
            return "two processes"
        built = f"{self.built_share:.0%} of the" if self.built_share else "all"
        (share, *others) = self.shares
        place = "" if others or share in (1.0, self.built_share) else f", on {share:.0%} of the SMs"
        return f"the engine built on {built} SMs{place}"


@dataclass(frozen=True)
class LimitsQuestion(Question):
    """Green contexts measure all shares in one process. MPS limits a whole process, so each share is a round.

    The largest share is first. If it fails, the cell fails; a smaller share that fails has its reason in the result.

    Attributes:
        method: name of a LimitMethod.
        shares: of the compute units, ascending.
        sharing: whether two clients are measured alone and together.
        number: of the round, from 0.
        builds: whether engines that are built on a share are measured too.
        loads: two clients with loads; None if they are not measured.
        client: the part of this process in the measurement of `loads`; None for the process that starts the others.
    """

    method: str
    shares: tuple[float, ...]
    sharing: bool = False
    number: int = 0
    builds: bool = False
    loads: LoadPlan | None = None
    client: LoadClient | None = None

    @property
    def rounds(self) -> tuple[LimitsRound, ...]:
        steps = tuple((share,) for share in reversed(self.shares)) if self.limits_process else (self.shares,)
        limited = [share for share in self.shares if self.builds and share < 1]
        return (
            *(LimitsRound(shares) for shares in steps),
            *(LimitsRound((share,), share) for share in limited),
            *([LimitsRound(loads=True)] if self.loads else []),
        )

    @property
    def round(self) -> LimitsRound:
        return self.rounds[self.number]

    @property
    def limits_process(self) -> bool:
        return self.method == "mps"

    @property
    def keeps_first(self) -> bool:
        return len(self.rounds) > 1

    @property
    def joins_checks(self) -> bool:
        return True

    def following(self, points: int) -> LimitsQuestion | None:
        number = self.number + 1
        return replace(self, number=number) if number < len(self.rounds) else None

    def build_round(self) -> BuildRound | None:
        """Return the build of each round but the first one, which exports the model and builds as the cell says."""
        if self.number == 0:
            return None
        share, title = self.round.built_share, f"round {self.number + 1} of {len(self.rounds)}: {self.round.title}"
        return BuildRound({}, (), CELL, title, BuildLimit(self.method, share) if share else None)

    def failed(self, outcome: str, reason: str) -> Result | None:
        """Return a result for each round but the first one."""
        share = self.round.built_share
        if share:
            return LimitsResult(self.method, (), builds=(EngineBuild(share, outcome=outcome, reason=reason),))
        if self.round.loads:
            return LimitsResult(self.method, (), loads=(LoadTimes("", outcome=outcome, reason=reason),))
        if self.number:
            return LimitsResult(self.method, (), failures=(FailedShare(self.round.shares[0], outcome, reason),))
        return None


def joined(results: Sequence[Result]) -> Result:
    """Return one result with the times of all rounds, and the tactics of engines compared with the first one."""
    found = [result for result in results if isinstance(result, LimitsResult)]
    builds = {build.share: build for result in reversed(found) for build in result.builds}
    first = builds.get(0.0)
    return replace(
        found[0],
        times=tuple(times for result in found for times in result.times),
        builds=tuple(_compared(build, first) for _, build in sorted(builds.items())),
        loads=tuple(times for result in found for times in result.loads),
        failures=tuple(failure for result in reversed(found) for failure in result.failures),
    )


def _compared(build: EngineBuild, first: EngineBuild | None) -> EngineBuild:
    """Return a build with the number of its other tactics instead of its tactics."""
    if first is None or build is first or not build.tactics or not first.tactics:
        return replace(build, tactics=(), layers=len(build.tactics))
    others = sum((Counter(build.tactics) - Counter(first.tactics)).values())
    return replace(build, tactics=(), layers=len(build.tactics), other_tactics=others)


SUITE = SuiteDescription(
    timed=True,
    question=LimitsQuestion,
    result=RESULT,
    joined=joined,
    settings={"warm_up_s": 1.0, "seconds": 0.5, "max_samples": 500},
)
