"""Result of suite=layers: the error of each marked output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from backends.json_part import Part, optional
from suites.suite import Result


@dataclass(frozen=True)
class LayerErrors(Part):
    """Difference of a finite output from that of FP32.

    Attributes:
        max_difference: largest absolute difference.
        relative_error: Frobenius norm of the difference, divided by that of the FP32 output.
        cosine_min: smallest cosine over tokens.
    """

    max_difference: float
    relative_error: float
    cosine_min: float


@dataclass(frozen=True)
class Layer(Part):
    """One marked output.

    Attributes:
        point: position in the model.
        nonfinite: number of NaN and Inf.
        errors: None if some values are not finite.
    """

    json_flat: ClassVar[Mapping[str, type[Part]]] = {"errors": LayerErrors}

    point: str
    nonfinite: int
    errors: LayerErrors | None = None


@dataclass(frozen=True)
class LayersResult(Result):
    """All marked outputs.

    Attributes:
        layers: in the order of the model.
        threshold: relative error above which an output counts as different from FP32; None before it is applied.
        first: point of the first output above the threshold; empty if there is none.
    """

    layers: tuple[Layer, ...]
    threshold: float | None = optional(None)
    first: str = ""


RESULT = LayersResult
