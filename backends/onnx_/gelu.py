"""Formulas of GELU, x * Phi(x), where Phi is the cumulative normal distribution. `cubic` is a different function.

If GELU is a separate kernel, it reads and writes each value once. On a GPU with fast memory the arithmetic decides its
time then, and erf needs many instructions: on an H200 a kernel with erf took more than twice the time of moving the
values. The formulas work with any arithmetic: layers of a TensorRT network, nodes of an ONNX graph, numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")

COEFFICIENTS = (1.59565627196, 0.0729375820679, -0.000249723366241, -6.11619938872e-05, 2.23816329242e-06)
"""Coefficients of x, x^3, x^5, ... of the polynomial p with sigmoid(p(x)) = Phi(x).

They were fitted up to EDGE by iteratively reweighted least squares, which minimizes the largest error of GELU. In FP32
the error is at most 3.5e-6. For comparison: the error of the usual cubic is 4.7e-4, and FP16 rounds 0.01 by 3.8e-6."""

EDGE = 6.5
"""Largest |x| of the fit. Beyond it Phi is within 1e-10 of 0 or 1, and the polynomial is not valid."""


class Arithmetic(Protocol[T]):
    """Elementwise operations on tensors of type T. A number operand is a constant."""

    def add(self, x: T, other: T | float) -> T: ...

    def multiply(self, x: T, other: T | float) -> T: ...

    def divide(self, x: T, other: float) -> T: ...

    def power(self, x: T, exponent: float) -> T: ...

    def erf(self, x: T) -> T: ...

    def sigmoid(self, x: T) -> T: ...

    def tanh(self, x: T) -> T: ...

    def clip(self, x: T, edge: float) -> T:
        """Limit values to -edge..edge."""
        ...


def by_erf(x: T, ops: Arithmetic[T]) -> T:
    """Compute x / 2 * (1 + erf(x / sqrt(2))), the definition of GELU, with which checkpoints were trained."""
    twice_phi = ops.add(ops.erf(ops.multiply(x, math.sqrt(0.5))), 1.0)
    return ops.multiply(ops.multiply(x, 0.5), twice_phi)


def by_exported_erf(x: T, ops: Arithmetic[T]) -> T:
    """Compute GELU with the operations of an ONNX export by PyTorch: x * (erf(x / sqrt(2)) + 1) * 0.5.

    TensorRT's documentation lists GELU with erf among the patterns that it fuses. Parsers of ONNX give it this order.
    """
    twice_phi = ops.add(ops.erf(ops.divide(x, math.sqrt(2))), 1.0)
    return ops.multiply(ops.multiply(x, twice_phi), 0.5)


def by_ordered_erf(x: T, ops: Arithmetic[T]) -> T:
    """Compute GELU with erf, and the last three operations in the order of `by_cubic`, which TensorRT 8.6 fuses."""
    phi = ops.multiply(ops.add(ops.erf(ops.multiply(x, math.sqrt(0.5))), 1.0), 0.5)
    return ops.multiply(phi, x)


def by_sigmoid(x: T, ops: Arithmetic[T]) -> T:
    """Compute x * sigmoid(p(x)). It differs from GELU by at most one step of FP16, or 3.5e-6 for results below 0.01."""
    return ops.multiply(x, ops.sigmoid(_polynomial(x, ops, COEFFICIENTS)))


def by_tanh(x: T, ops: Arithmetic[T]) -> T:
    """Compute the formula of `by_sigmoid` with tanh, which GPUs also have: sigmoid(p) = (1 + tanh(p / 2)) / 2."""
    twice_phi = ops.add(ops.tanh(_polynomial(x, ops, [coefficient / 2 for coefficient in COEFFICIENTS])), 1.0)
    return ops.multiply(ops.multiply(x, 0.5), twice_phi)


def by_cubic(x: T, ops: Arithmetic[T]) -> T:
    """Compute x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) (Hendrycks and Gimpel, arXiv:1606.08415).

    It is a different function, which differs from GELU by up to 4.7e-4. In FP32 the smallest cosine of minilm's pooled
    sentences becomes 0.999999. The operations have the order of NVIDIA's sample (add_gelu in demo/BERT of
    NVIDIA/TensorRT). In this order TensorRT 8.6 recognizes a GELU that it can fuse into the product before it.
    """
    cubic = ops.add(x, ops.multiply(ops.power(x, 3.0), 0.044715))
    phi = ops.multiply(ops.add(ops.tanh(ops.multiply(cubic, math.sqrt(2 / math.pi))), 1.0), 0.5)
    return ops.multiply(phi, x)


def _polynomial(x: T, ops: Arithmetic[T], coefficients: Sequence[float]) -> T:
    """Return the odd polynomial c0 x + c1 x^3 + c2 x^5 + ... of x limited to -EDGE..EDGE."""
    clipped = ops.clip(x, EDGE)
    square = ops.multiply(clipped, clipped)
    *lower, highest = coefficients
    factor = ops.multiply(square, highest)
    for index, coefficient in enumerate(reversed(lower)):
        factor = ops.add(factor if index == 0 else ops.multiply(factor, square), coefficient)
    return ops.multiply(clipped, factor)


class Formula(Protocol):
    """Function from x to a formula of x, for tensors of any type."""

    def __call__(self, x: T, ops: Arithmetic[T]) -> T: ...


GELU_VARIANTS: dict[str, Formula] = {
    "erf": by_erf,
    "exported_erf": by_exported_erf,
    "ordered_erf": by_ordered_erf,
    "sigmoid": by_sigmoid,
    "tanh": by_tanh,
    "cubic": by_cubic,
}
