from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from suites.statistics.stats import Estimate, best_time, estimate, percentile, slower, summarize


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


def of_card(card: str, time: float, spread: float, spread_freedom: int, processes: int) -> Estimate:
    """Return an estimate of processes that hardly differ, with the spread of a study."""
    sure = Estimate(time, time, time, 1e-4, processes - 1, processes, 600)
    return replace(sure, device=card, spread=spread, spread_freedom=spread_freedom)


@pytest.mark.parametrize("processes", [2, 8])
def test_two_cards_are_compared_with_the_freedom_of_the_study(processes: int) -> None:
    """The one-sided 98% quantile of Student's t distribution is 2.999 for 4 degrees of freedom, and 15.89 for one."""
    least = 2.999 * 0.3
    one = of_card("GPU-0", 1.0, 0.0, 5, processes)
    for difference, found in ((least * 1.01, True), (least * 0.99, False)):
        assert slower(of_card("GPU-1", np.exp(difference), 0.3, 4, processes), one) is found
    few = of_card("GPU-1", np.exp(least * 1.01), 0.3, 1, processes)
    assert not slower(few, one)
    assert slower(replace(few, device="GPU-0"), one)


@pytest.mark.parametrize("processes", [2, 8])
def test_equal_rows_of_two_cards_have_a_false_winner_in_about_4_percent(processes: int) -> None:
    generator, spread, freedom = np.random.default_rng(7), 0.1, 4
    false = 0
    for _ in range(1000):
        one, other = (
            of_card(
                card, np.exp(generator.normal(0, spread)), spread * (generator.chisquare(freedom) / freedom) ** 0.5,
                freedom, processes,
            )
            for card in ("GPU-0", "GPU-1")
        )  # fmt: skip
        false += slower(one, other) or slower(other, one)
    assert 20 <= false <= 60
