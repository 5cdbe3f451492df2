"""The conversion to FP16 has the bits of onnxruntime's own."""

from __future__ import annotations

import numpy as np
import pytest
from onnxruntime.transformers import float16

from backends.onnx_.half_weights import faster_conversion, to_half

BORDERS = [
    0.0, 2**-26, 2**-25, 5.96e-08, 2**-24, 1e-45, 6e-5, 1.0, 65504.0, 65505.0, 65519.99, 65520.0, 70000.0, 3e38,
    np.inf, np.nan,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_every_number_has_the_bits_of_onnxruntime(kind: type[np.floating]) -> None:
    borders = np.asarray(BORDERS, kind)
    near = [np.nextafter(borders, kind(end)) for end in (0, np.inf)]
    any_bits = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32).view(np.float32).astype(kind)
    positive = np.concatenate([borders, *near, any_bits])
    for values in (positive, -positive, positive[:0], positive[:6].reshape(2, 3)):
        expected, half = float16.convert_np_to_float16(values), to_half(values)
        assert half.shape == values.shape
        np.testing.assert_array_equal(half.view(np.uint16), expected.view(np.uint16))


def test_onnxruntime_gets_its_own_function_back() -> None:
    own = float16.convert_np_to_float16
    with faster_conversion(float16.convert_float_to_float16):
        assert float16.convert_np_to_float16 is to_half
    assert float16.convert_np_to_float16 is own
