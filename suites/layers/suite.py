"""Where in the model do the outputs leave FP32?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from suites.suite import Judging, Question, Scores, SuiteDescription


@dataclass(frozen=True)
class LayersQuestion(Question):
    """A chunk of the points of the model that become outputs: `size` points from number `begin` on."""

    begin: int
    size: int

    def following(self, points: int) -> LayersQuestion | None:
        end = self.begin + self.size
        return replace(self, begin=end) if end < points else None


def first_above(layers: Sequence[Mapping[str, float]], threshold: float) -> str:
    """Return the first point with NaN or Inf, or with a relative error above `threshold`; empty if there is none."""
    for layer in layers:
        if layer["nonfinite"] or layer["relative_error"] > threshold:
            return str(layer["point"])
    return ""


def joined(results: Sequence[Scores]) -> Scores:
    """Return the layers of all chunks."""
    return {"layers": [layer for result in results for layer in cast("list[object]", result["layers"])]}


def judged(scores: Scores, judging: Judging) -> Scores:
    layers = cast("list[Mapping[str, float]]", scores["layers"])
    return {**scores, "threshold": judging.threshold, "first": first_above(layers, judging.threshold)}


SUITE = SuiteDescription(question=LayersQuestion, joined=joined, judged=judged)
