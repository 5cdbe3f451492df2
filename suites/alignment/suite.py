"""How much time do batch sizes, sequence lengths and model sizes take that are no multiples of 8, 16, 32 or 64?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backends.base import Shape
from backends.model.families import family_of
from backends.model.reference import ModelReference
from suites.alignment.result import RESULT, AlignmentResult, SizeVariant, Sweep
from suites.suite import Question, Result, SuiteDescription


@dataclass(frozen=True)
class TimedRun:
    """A shape to measure, without padding or with one padding token in each sequence."""

    shape: Shape
    padded: bool = False


@dataclass(frozen=True)
class AlignmentQuestion(Question):
    """The first round measures the shapes of all sweeps. Each further round measures one variant of the model.

    Attributes:
        sweeps: the sizes around each centre.
        runs: the shapes that they need, ascending.
        removes_padding: whether the backend computes no padding.
        centres: the shapes of the command line, at which variants are measured.
        variants: the model itself, models with one padded size, and the model itself again; empty if no size is padded.
        number: of the round, from 0.
    """

    sweeps: tuple[Sweep, ...]
    runs: tuple[TimedRun, ...]
    removes_padding: bool
    centres: tuple[Shape, ...] = ()
    variants: tuple[SizeVariant, ...] = ()
    number: int = 0

    @property
    def variant(self) -> SizeVariant | None:
        """The variant of this round; None in the first one."""
        return self.variants[self.number - 1] if self.number else None

    @property
    def keeps_first(self) -> bool:
        return True

    def following(self, points: int) -> AlignmentQuestion | None:
        number = self.number + 1
        while number <= len(self.variants) and self.variants[number - 1].reason:
            number += 1
        return replace(self, number=number) if number <= len(self.variants) else None

    def model(self, model: ModelReference) -> ModelReference:
        variant = self.variant
        if variant is None or not variant.name:
            return model
        if variant.exact:
            return replace(model, padded={variant.name: variant.value}, identity="")
        own_name = family_of(model.architecture).settings.get(variant.name, variant.name)
        return replace(model, architecture={**model.architecture, own_name: variant.value})

    def failed(self, outcome: str, reason: str) -> Result | None:
        """Return a result for each variant. Without the first round, the cell fails."""
        if self.variant is None:
            return None
        return AlignmentResult((), (), (replace(self.variant, outcome=outcome, reason=reason),))


def joined(results: Sequence[Result]) -> Result:
    """Return the result of the first round with all variants."""
    first, *others = (result for result in results if isinstance(result, AlignmentResult))
    measured = (variant for other in others for variant in other.variants)
    return replace(first, variants=tuple(v if v.reason else next(measured) for v in first.variants))


SUITE = SuiteDescription(
    timed=True,
    question=AlignmentQuestion,
    result=RESULT,
    joined=joined,
    settings={"warm_up_s": 0.2, "seconds": 0.1, "min_samples": 10, "max_samples": 200},
)
