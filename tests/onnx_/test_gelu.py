"""The variants of GELU, compared with its definition for every finite FP16 value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf, expit, ndtr

from backends.base import Array
from backends.onnx_.gelu import EDGE, GELU_VARIANTS


class Numpy:
    """Arithmetic in FP32, as in a fused kernel."""

    def add(self, x: Array, other: Array | float) -> Array:
        return x + np.float32(other)

    def multiply(self, x: Array, other: Array | float) -> Array:
        return x * np.float32(other)

    def divide(self, x: Array, other: float) -> Array:
        return x / np.float32(other)

    def power(self, x: Array, exponent: float) -> Array:
        return x ** np.float32(exponent)

    def erf(self, x: Array) -> Array:
        return np.asarray(erf(x))

    def sigmoid(self, x: Array) -> Array:
        return np.asarray(expit(x))

    def tanh(self, x: Array) -> Array:
        return np.tanh(x)

    def clip(self, x: Array, edge: float) -> Array:
        return np.clip(x, -np.float32(edge), np.float32(edge))


@pytest.fixture(scope="module")
def fp16_values() -> Array:
    """All finite FP16 values, as FP32."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return halves[np.isfinite(halves)].astype(np.float32)


EXACT = {"erf": 5e-7, "exported_erf": 5e-7, "ordered_erf": 5e-7, "sigmoid": 3.5e-6, "tanh": 3.5e-6}
"""Largest error, for |x| up to EDGE, of the variants that compute GELU."""


@pytest.mark.parametrize("variant", EXACT)
def test_exact_variants_are_within_one_fp16_step_of_gelu(variant: str, fp16_values: Array) -> None:
    outputs, exact = GELU_VARIANTS[variant](fp16_values, Numpy()), exact_gelu(fp16_values)
    assert outputs.dtype == np.float32
    near = np.abs(fp16_values) < EDGE
    assert np.abs(outputs - exact)[near].max() < EXACT[variant]
    # Beyond EDGE GELU is x or 0.
    assert np.abs(outputs - exact)[~near].max() < 1e-5
    distance = np.abs(steps(outputs) - steps(exact))
    assert distance[np.abs(exact) > 0.01].max() <= 1


def test_the_cubic_is_another_function(fp16_values: Array) -> None:
    assert set(GELU_VARIANTS) == {*EXACT, "cubic"}
    outputs, exact = GELU_VARIANTS["cubic"](fp16_values, Numpy()), exact_gelu(fp16_values)
    by_torch = torch.nn.functional.gelu(torch.from_numpy(fp16_values), approximate="tanh").numpy()
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, by_torch, atol=1e-6, rtol=1e-6)
    assert 4e-4 < np.abs(outputs - exact).max() < 4.8e-4


def test_all_exact_variants_round_to_almost_the_same_fp16_values(fp16_values: Array) -> None:
    """Where an output is at least 0.01, a variant gives the FP16 value next to that of the definition at most."""
    exact = exact_gelu(fp16_values)
    large = np.abs(exact) > 0.01
    differing = {
        variant: np.mean(steps(GELU_VARIANTS[variant](fp16_values, Numpy()))[large] != steps(exact)[large])
        for variant in EXACT
    }
    assert max(differing["erf"], differing["exported_erf"], differing["ordered_erf"]) < 1e-3
    assert max(differing["sigmoid"], differing["tanh"]) < 0.1


def test_the_cubic_in_fp16_arithmetic_is_less_exact_than_in_fp32(fp16_values: Array) -> None:
    """TensorRT's plugin for GELU computes the cubic in FP16. The test rounds after each step."""
    x = fp16_values[np.abs(fp16_values) < EDGE].astype(np.float16)
    half, one = np.float16(0.5), np.float16(1.0)
    inner = x * (np.float16(0.044715 * np.sqrt(2 / np.pi)) * (x * x) + np.float16(np.sqrt(2 / np.pi)))
    emulated = (x * (half * (one + np.tanh(inner)))).astype(np.float32)
    exact, fused = exact_gelu(x.astype(np.float32)), GELU_VARIANTS["cubic"](x.astype(np.float32), Numpy())
    assert np.abs(fused - exact).max() < 5e-4 < np.abs(emulated - exact).max()


class Recorder(Numpy):
    """Arithmetic that records its operations, with their constants."""

    def __init__(self) -> None:
        self.operations: list[tuple[str, float | None]] = []

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        if name == "operations" or name.startswith("_"):
            return attribute

        def record(x: Array, *other: Any) -> Array:
            self.operations.append((name, next((number for number in other if isinstance(number, float)), None)))
            return np.asarray(attribute(x, *other))

        return record


def test_the_cubic_has_the_operation_order_that_tensorrt_fuses() -> None:
    recorder = Recorder()
    GELU_VARIANTS["cubic"](np.ones(1, np.float32), recorder)
    assert recorder.operations == [
        ("power", 3.0), ("multiply", 0.044715), ("add", None), ("multiply", pytest.approx(0.7978845608)),
        ("tanh", None), ("add", 1.0), ("multiply", 0.5), ("multiply", None),
    ]  # fmt: skip
    others = {name: Recorder() for name in ("exported_erf", "ordered_erf")}
    for name, other in others.items():
        GELU_VARIANTS[name](np.ones(1, np.float32), other)
    assert others["ordered_erf"].operations[-3:] == recorder.operations[-3:]
    assert [name for name, _ in others["exported_erf"].operations] == ["divide", "erf", "add", "multiply", "multiply"]


def exact_gelu(x: Array) -> Array:
    return np.asarray(x.astype(np.float64) * ndtr(x.astype(np.float64)))


def steps(values: Array) -> Array:
    """Return the number of FP16 values below each magnitude. Comparisons are valid for values of the same sign."""
    return values.astype(np.float16).view(np.int16).astype(np.int64)
