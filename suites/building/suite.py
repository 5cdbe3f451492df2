"""How do build options change the build time and the engine, and are two builds the same?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from backends.base import Shape
from suites.building.result import FIRST, MEASURED_AGAIN, RESULT, SAVED_TIMINGS, Build, BuildingResult, Engine
from suites.suite import EMPTY, TIMINGS, BuildRound, Question, Result, SuiteDescription
from suites.suite import FIRST as FIRST_CACHE

EXAMPLES = 3
"""Most layers with other tactics that a record names."""

CACHES = {FIRST: FIRST_CACHE, MEASURED_AGAIN: FIRST_CACHE, SAVED_TIMINGS: TIMINGS}
"""Cache of a round by its kind; others have an empty one."""


@dataclass(frozen=True)
class Variant:
    """A build to try.

    Attributes:
        kind, setting: as in `Build`.
        shapes: the shapes of the engine; the last one is measured.
        options: changed options of the backend, in JSON types.
    """

    kind: str
    setting: str
    shapes: tuple[Shape, ...]
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildingQuestion(Question):
    """All builds, and the number of the one of this round."""

    variants: tuple[Variant, ...]
    number: int = 0

    @property
    def variant(self) -> Variant:
        return self.variants[self.number]

    def following(self, points: int) -> BuildingQuestion | None:
        number = self.number + 1
        return replace(self, number=number) if number < len(self.variants) else None

    def build_round(self) -> BuildRound:
        variant = self.variant
        words = ", ".join(text for text in (variant.kind, variant.setting) if text)
        title = f"build {self.number + 1} of {len(self.variants)}: {words}"
        return BuildRound(variant.options, variant.shapes, CACHES.get(variant.kind, EMPTY), title)

    def failed(self, outcome: str, reason: str) -> Result | None:
        """Return a result for each round but the first, without which there is nothing to compare with."""
        if self.number == 0:
            return None
        return BuildingResult((Build(self.variant.kind, self.variant.setting, None, outcome, reason),))


def joined(results: Sequence[Result]) -> Result:
    """Return all builds, with their tactics compared with those of the first one."""
    builds = [build for result in results if isinstance(result, BuildingResult) for build in result.builds]
    first = builds[0].engine
    assert first is not None
    return BuildingResult(tuple(replace(build, engine=_compared(build.engine, first)) for build in builds))


def _compared(engine: Engine | None, first: Engine) -> Engine | None:
    if engine is None or engine is first or not engine.tactics or not first.tactics:
        return engine
    others = list((Counter(engine.tactics) - Counter(first.tactics)).elements())
    return replace(engine, tactics=(), other_tactics=len(others), examples=tuple(others[:EXAMPLES]))


SUITE = SuiteDescription(
    timed=True,
    question=BuildingQuestion,
    result=RESULT,
    joined=joined,
    settings={"warm_up_s": 1.0, "seconds": 0.5, "max_samples": 200},
)
