"""GELU in each form, held against its definition over every value that FP16 has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf, expit, ndtr

from backends.base import Array
from backends.gelu import EDGE, FORMS


class Numpy:
    """In FP32, as a fused kernel computes."""

    def add(self, one: Array, other: Array | float) -> Array:
        return one + np.float32(other)

    def multiply(self, one: Array, other: Array | float) -> Array:
        return one * np.float32(other)

    def power(self, one: Array, exponent: float) -> Array:
        return one ** np.float32(exponent)

    def erf(self, one: Array) -> Array:
        return np.asarray(erf(one))

    def sigmoid(self, one: Array) -> Array:
        return np.asarray(expit(one))

    def tanh(self, one: Array) -> Array:
        return np.tanh(one)

    def clip(self, one: Array, edge: float) -> Array:
        return np.clip(one, -np.float32(edge), np.float32(edge))


@pytest.fixture(scope="module")
def every() -> Array:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return halves[np.isfinite(halves)].astype(np.float32)


EXACT = {"erf": 5e-7, "sigmoid": 3.5e-6, "tanh": 3.5e-6}
"""Largest error up to EDGE of the forms that are GELU."""


@pytest.mark.parametrize("form", EXACT)
def test_forms_that_are_gelu_are_within_a_step_of_fp16_of_it(form: str, every: Array) -> None:
    found, exact = FORMS[form](every, Numpy()), every.astype(np.float64) * ndtr(every.astype(np.float64))
    assert found.dtype == np.float32
    near = np.abs(every) < EDGE
    assert np.abs(found - exact)[near].max() < EXACT[form]
    # Far out it is x or nothing.
    assert np.abs(found - exact)[~near].max() < 1e-5
    places = np.abs(steps(found) - steps(exact))
    assert places[np.abs(exact) > 0.01].max() <= 1


def test_the_cubic_is_another_function(every: Array) -> None:
    assert set(FORMS) == {*EXACT, "cubic"}
    found, exact = FORMS["cubic"](every, Numpy()), every.astype(np.float64) * ndtr(every.astype(np.float64))
    by_torch = torch.nn.functional.gelu(torch.from_numpy(every), approximate="tanh").numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_torch, atol=1e-6, rtol=1e-6)
    assert 4e-4 < np.abs(found - exact).max() < 4.8e-4


class Order(Numpy):
    """Remembers what was asked of it, with its numbers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float | None]] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name == "asked" or name.startswith("_"):
            return found

        def remember(one: Array, *other: Any) -> Array:
            self.asked.append((name, next((number for number in other if isinstance(number, float)), None)))
            return np.asarray(found(one, *other))

        return remember


def test_the_cubic_has_the_order_that_tensorrt_fuses() -> None:
    order = Order()
    FORMS["cubic"](np.ones(1, np.float32), order)
    assert order.asked == [
        ("power", 3.0), ("multiply", 0.044715), ("add", None), ("multiply", pytest.approx(0.7978845608)),
        ("tanh", None), ("add", 1.0), ("multiply", 0.5), ("multiply", None),
    ]  # fmt: skip


def steps(values: Array) -> Array:
    """Of numbers of one sign: how many numbers of FP16 lie below their magnitude."""
    return values.astype(np.float16).view(np.int16).astype(np.int64)
