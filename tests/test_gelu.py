"""GELU in each form, held against its definition over every value that FP16 has."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf, expit, ndtr

from backends.base import Array
from backends.gelu import EDGE, FORMS


class Numpy:
    """In FP32, as a fused kernel computes."""

    def add(self, one: Array, other: Array | float) -> Array:
        return one + np.float32(other)

    def multiply(self, one: Array, other: Array | float) -> Array:
        return one * np.float32(other)

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


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_within_a_step_of_fp16_of_gelu(form: str, every: Array) -> None:
    found, exact = FORMS[form](every, Numpy()), every.astype(np.float64) * ndtr(every.astype(np.float64))
    assert found.dtype == np.float32
    near = np.abs(every) < EDGE
    assert np.abs(found - exact)[near].max() < 3.5e-6
    # Far out it is x or nothing.
    assert np.abs(found - exact)[~near].max() < 1e-5
    places = np.abs(steps(found) - steps(exact))
    assert places[np.abs(exact) > 0.01].max() <= 1


def steps(values: Array) -> Array:
    """Of numbers of one sign: how many numbers of FP16 lie below their magnitude."""
    return values.astype(np.float16).view(np.int16).astype(np.int64)
