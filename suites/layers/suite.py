"""Where in the model do the outputs leave FP32?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backends.base import Unsupported
from backends.description import MARKED_LAYERS
from backends.model.supported import check_named_layers
from backends.registry import describe
from suites.layers.result import RESULT, Layer, LayersResult
from suites.suite import Judging, ModelUse, Question, Result, SuiteDescription


@dataclass(frozen=True)
class LayersQuestion(Question):
    """A chunk of the points of the model that become outputs: `size` points from number `begin` on."""

    begin: int
    size: int

    def following(self, points: int) -> LayersQuestion | None:
        end = self.begin + self.size
        return replace(self, begin=end) if end < points else None


def first_above(layers: Sequence[Layer], threshold: float) -> str:
    """Return the first point with NaN or Inf, or with a relative error above `threshold`; empty if there is none."""
    for layer in layers:
        if layer.errors is None or layer.errors.relative_error > threshold:
            return layer.point
    return ""


def joined(results: Sequence[Result]) -> Result:
    """Return the layers of all chunks."""
    return LayersResult(tuple(layer for result in results for layer in _layers(result)))


def judged(result: Result, judging: Judging) -> Result:
    layers = _layers(result)
    return LayersResult(layers, judging.threshold, first_above(layers, judging.threshold))


def _layers(result: Result) -> tuple[Layer, ...]:
    assert isinstance(result, LayersResult)
    return result.layers


def check_model(question: Question, use: ModelUse) -> None:
    """
    Raises:
        Unsupported: the backend cannot mark outputs, or the names of the model's layers are unknown.
    """
    if MARKED_LAYERS not in describe(use.backend).outputs:
        raise Unsupported(f"backend={use.backend} returns only the last output; use a backend that marks layers")
    check_named_layers(use.config, "suite=layers")


SUITE = SuiteDescription(question=LayersQuestion, result=RESULT, joined=joined, judged=judged, check_model=check_model)
