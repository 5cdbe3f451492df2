"""Medians of resamplings are equal to NumPy's, draw by draw."""

from __future__ import annotations

import numpy as np
import pytest

from suites.statistics import resampling, stats


@pytest.mark.parametrize("number", [1, 2, 3, 10, 39, 40, 333, 1000])
@pytest.mark.parametrize("kind", ["spread", "ties", "equal", "descending"])
def test_medians_equal_those_of_the_same_draws_in_numpy(number: int, kind: str) -> None:
    generator = np.random.default_rng(number)
    values = {
        "spread": generator.lognormal(size=number) * 1e6,
        "ties": generator.integers(0, 3, number).astype(float),
        "equal": np.full(number, 7.5),
        "descending": np.arange(number, 0, -1.0),
    }[kind]
    expected = np.median(np.random.default_rng(0).choice(values, (1000, number)), axis=1)
    assert np.array_equal(resampling.medians(values, 1000), expected)


def test_an_interval_is_computed_only_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(stats, "medians", lambda values, count: calls.append(count) or values)
    summary = stats.summarize([1.0, 2.0, 3.0])
    assert (summary.p50, summary.count, calls) == (2.0, 3, [])
    assert summary.low <= summary.high
    assert calls == [stats.RESAMPLES]
