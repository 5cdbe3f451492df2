"""The ratio of two times: its interval, its verdict, and the smallest slowdown that can be detected."""

from __future__ import annotations

import math

import numpy as np
import pytest

from suites.comparing.shift import (
    FALSE_VERDICTS,
    FASTER,
    LEAST_PROCESSES,
    NO_DIFFERENCE,
    NO_VERDICT,
    POWER,
    SLOWER,
    log_shifts,
    shift_of,
)

STEADY = [10.00, 10.02, 9.99, 10.01, 9.98]


def test_a_slower_side_has_a_ratio_above_one() -> None:
    shift = shift_of(STEADY, [1.03 * time for time in STEADY])
    assert shift.ratio == pytest.approx(1.03)
    assert 1 < shift.low < 1.03 < shift.high
    assert shift.verdict == SLOWER
    assert shift_of([1.03 * time for time in STEADY], STEADY).verdict == FASTER


def test_equal_sides_have_no_difference() -> None:
    shift = shift_of(STEADY, STEADY)
    assert (shift.ratio, shift.verdict) == (1.0, NO_DIFFERENCE)
    assert shift.low * shift.high == pytest.approx(1)


def test_the_tolerance_counts_only_for_a_slower_side() -> None:
    shift = shift_of(STEADY, [1.03 * time for time in STEADY])
    assert shift.exceeds(0.02)
    assert not shift.exceeds(0.04)
    assert not shift_of([1.03 * time for time in STEADY], STEADY).exceeds(0.0)
    noisy = shift_of([10, 14, 8], [11, 15, 12])
    assert noisy.ratio > 1.02
    assert not noisy.exceeds(0.02)


@pytest.mark.parametrize("count", range(1, LEAST_PROCESSES))
def test_too_few_processes_give_a_ratio_and_no_verdict(count: int) -> None:
    shift = shift_of(STEADY, [2 * time for time in STEADY[:count]])
    assert shift.ratio == pytest.approx(2, rel=0.01)
    assert shift.verdict == NO_VERDICT
    assert all(map(math.isnan, (shift.low, shift.high, shift.smallest)))


def test_equal_medians_do_not_make_a_tiny_difference_certain() -> None:
    assert shift_of([10.0] * 5, [10.005] * 5).verdict == NO_DIFFERENCE
    assert shift_of([10.0] * 5, [10.2] * 5).verdict == SLOWER


def test_more_rows_make_intervals_wider() -> None:
    one, many = (shift_of(STEADY, [1.001 * time for time in STEADY], rows) for rows in (1, 20))
    assert many.low < one.low < one.high < many.high
    assert many.smallest > one.smallest


@pytest.mark.parametrize("processes", [3, 5, 10])
def test_rates_with_normal_noise_are_the_nominal_ones(processes: int) -> None:
    generator, repeats = np.random.default_rng(processes), 20000
    a, b = 0.01 * generator.normal(size=(2, repeats, processes))
    difference, half_width, smallest = log_shifts(a, b)
    assert np.mean(np.abs(difference) > half_width) <= 1.1 * FALSE_VERDICTS
    # With few processes, half of the runs underestimate the spread, and so the detectable slowdown.
    found = np.mean(difference + np.median(smallest) > half_width)
    assert POWER - 0.1 <= found <= POWER + 0.02
