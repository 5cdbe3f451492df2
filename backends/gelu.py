"""GELU, x times the normal distribution up to x, by one function or another; `cubic` alone is another function.

Where it is a kernel of its own, each value is read and written once, so that on a fast memory its arithmetic decides,
and erf is long: a kernel with it took more than twice what moving the values would on an H200. Written over any
arithmetic: layers of a TensorRT network, nodes of an ONNX graph, numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

COEFFICIENTS = (1.59565627196, 0.0729375820679, -0.000249723366241, -6.11619938872e-05, 2.23816329242e-06)
"""Of x, x^3, ... in the polynomial whose sigmoid is the normal distribution, fitted up to EDGE, by least squares
weighted anew until the largest error of GELU is smallest: in FP32 at most 3.5e-6, where the usual cubic is off by
4.7e-4 and FP16 rounds 0.01 by 3.8e-6."""

EDGE = 6.5
"""Beyond it the normal distribution is 0 or 1 to less than 1e-10, and the polynomial not to be trusted."""


class Arithmetic(Protocol[T]):
    """Elementwise operations on a tensor; numbers are constants."""

    def add(self, one: T, other: T | float) -> T: ...

    def multiply(self, one: T, other: T | float) -> T: ...

    def power(self, one: T, exponent: float) -> T: ...

    def erf(self, one: T) -> T: ...

    def sigmoid(self, one: T) -> T: ...

    def tanh(self, one: T) -> T: ...

    def clip(self, one: T, edge: float) -> T:
        """Between -edge and edge."""
        ...


def by_erf(x: T, on: Arithmetic[T]) -> T:
    """x / 2 (1 + erf(x / sqrt 2)), as it is defined and checkpoints were trained."""
    share = on.add(on.erf(on.multiply(x, math.sqrt(0.5))), 1.0)
    return on.multiply(on.multiply(x, 0.5), share)


def by_sigmoid(x: T, on: Arithmetic[T]) -> T:
    """x times the sigmoid of a polynomial: within a step of FP16 of the same, or of 3.5e-6 where it is below 0.01."""
    return on.multiply(x, on.sigmoid(_polynomial(x, on, COEFFICIENTS)))


def by_tanh(x: T, on: Arithmetic[T]) -> T:
    """The same by another function that a GPU has: a sigmoid is half a tanh of half as much, and a half."""
    share = on.add(on.tanh(_polynomial(x, on, [coefficient / 2 for coefficient in COEFFICIENTS])), 1.0)
    return on.multiply(on.multiply(x, 0.5), share)


def by_cubic(x: T, on: Arithmetic[T]) -> T:
    """Another function: x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), off by up to 4.7e-4 (Hendrycks and Gimpel,
    arXiv:1606.08415). In FP32 it takes the smallest cosine of minilm's pooled sentences to 0.999999. The operations
    stand in the order of NVIDIA's own sample (add_gelu in demo/BERT of NVIDIA/TensorRT), in which TensorRT 8.6 takes
    them for the GELU that its products can end with."""
    bent = on.add(x, on.multiply(on.power(x, 3.0), 0.044715))
    share = on.multiply(on.add(on.tanh(on.multiply(bent, math.sqrt(2 / math.pi))), 1.0), 0.5)
    return on.multiply(share, x)


def _polynomial(x: T, on: Arithmetic[T], coefficients: Sequence[float]) -> T:
    held = on.clip(x, EDGE)
    square = on.multiply(held, held)
    *lower, highest = coefficients
    slope = on.multiply(square, highest)
    for index, coefficient in enumerate(reversed(lower)):
        slope = on.add(slope if index == 0 else on.multiply(slope, square), coefficient)
    return on.multiply(held, slope)


FORMS: dict[str, Callable[[Any, Arithmetic[Any]], Any]] = {
    "erf": by_erf,
    "sigmoid": by_sigmoid,
    "tanh": by_tanh,
    "cubic": by_cubic,
}
