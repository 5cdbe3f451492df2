"""Comparison of outputs with reference outputs."""

from __future__ import annotations

import numpy as np
import pytest

from suites.measuring.output_difference import ReferenceDifference, compare_outputs, compare_with_reference


def test_figures_of_a_known_difference() -> None:
    reference = np.asarray([[3.0, 4.0], [0.0, 2.0]], np.float32)
    output = np.asarray([[3.0, 4.0], [2.0, 0.0]], np.float16)
    difference = compare_outputs(output, reference)
    assert difference.nonfinite == 0
    assert difference.max_difference == 2.0
    assert difference.relative_to_largest == 0.5
    assert difference.relative_error == pytest.approx((8 / 29) ** 0.5)
    assert difference.cosines.tolist() == [1.0, 0.0]
    assert difference.cosines.dtype == np.float64


def test_equal_outputs_have_no_difference_also_if_they_are_zero() -> None:
    zeros = np.zeros((2, 3), np.float32)
    difference = compare_outputs(zeros, zeros)
    assert (difference.max_difference, difference.relative_to_largest) == (0.0, 0.0)
    assert difference.cosines.tolist() == [0.0, 0.0]


def test_nan_and_inf_are_counted() -> None:
    difference = compare_outputs(np.asarray([[np.nan, np.inf, 1.0]]), np.ones((1, 3)))
    assert difference.nonfinite == 2
    assert np.isnan(difference.max_difference)


def test_other_shapes_are_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"outputs of shape \(2, 3\) cannot be compared with a reference of \(1, 3\)"):
        compare_outputs(np.ones((2, 3)), np.ones((1, 3)))


def test_only_tokens_of_the_reference_rows_count() -> None:
    generator = np.random.default_rng(0)
    output = generator.standard_normal((3, 4, 8), np.float32)
    mask = np.asarray([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], np.int32)
    rows = np.asarray([0, 1])
    reference = output[rows].copy()
    reference[1, 2:] = 7.0  # padding
    same = compare_with_reference(output, reference, rows, mask)
    assert same == ReferenceDifference(0, pytest.approx(1), pytest.approx(1), 0.0)
    reference[1, 1] *= -1
    other = compare_with_reference(output, reference, rows, mask)
    assert other.token_cosine == pytest.approx(-1)
    assert other.cosine is not None
    assert other.cosine < 0.9
    assert other.max_difference == pytest.approx(2 * np.abs(output[1, 1]).max())
    output[2, 0, 0] = np.inf  # a row without a reference
    assert compare_with_reference(output, reference, rows, mask).nonfinite == 1
    output[2, 0, 0], output[2, 1, 0] = 0.0, np.nan  # padding
    assert compare_with_reference(output, reference, rows, mask).nonfinite == 0
