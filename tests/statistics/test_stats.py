from __future__ import annotations

import numpy as np
import pytest

from suites.statistics.stats import best_time, estimate, percentile, summarize


def test_percentiles_of_fixed_samples() -> None:
    summary = summarize(range(1, 101))
    assert summary.p50 == 50.5
    assert percentile(range(1, 201), 90) == pytest.approx(180.1)
    assert percentile(range(1, 201), 99) == pytest.approx(198.01)
    assert summary.low <= 50.5 <= summary.high
    assert summary.count == 100


def test_the_interval_contains_the_true_median_in_about_95_percent() -> None:
    generator = np.random.default_rng(1)
    true = np.log(2)  # the median of the exponential distribution with mean 1
    hits = 0
    for _ in range(200):
        summary = summarize(generator.exponential(size=80))
        hits += summary.low <= true <= summary.high
    assert 0.90 <= hits / 200 <= 0.99


def test_the_same_samples_give_the_same_interval() -> None:
    samples = np.random.default_rng(2).normal(size=50)
    assert summarize(samples) == summarize(samples)


def test_the_best_time_is_the_lower_of_plain_and_graph() -> None:
    assert best_time({False: 2.0, True: 1.0}) == (True, 1.0)
    assert best_time({False: 1.0, True: 2.0}) == (False, 1.0)
    assert best_time({True: 3.0}) == (True, 3.0)
    assert best_time({False: 1.0, True: 1.0}) == (False, 1.0)
    slow, fast = (estimate([[time, time, time]]) for time in (20, 10))
    graph, time = best_time({False: slow, True: fast})
    assert graph
    assert time is fast
