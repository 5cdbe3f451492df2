"""Timing loops over programmed sessions on a simulated clock, so that the load of the machine has no influence."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, pairwise

import numpy as np
import pytest

from backends.null_.null import Costs, NullSession
from suites.measuring import clock
from suites.measuring.clock import Effort

QUICK = Effort(warm_up_s=0.3, seconds=0.05, min_samples=10, max_samples=200, tolerance=0.05)
FEEDS = {"input_ids": np.ones((1, 4), np.int32)}


@pytest.fixture(autouse=True)
def _simulated_clock(simulated: Callable[[int], None]) -> None:
    simulated(0)


def test_device_times_are_measured_in_the_stream() -> None:
    samples = clock.time_device(NullSession("ok", Costs(0, 2.5)), QUICK)
    assert set(samples.values) == {2_500_000}
    assert sum(n for _, _, n in samples.windows) == len(samples.values) <= 225


def test_host_times_contain_the_programmed_step() -> None:
    session = NullSession("ok", Costs(2, 1))
    enqueue, latency = clock.time_enqueue(session, QUICK)
    end_to_end = clock.time_end_to_end(session, FEEDS, QUICK)
    sustained = clock.time_sustained(session, QUICK)
    medians = [np.median(samples.values) / 1e6 for samples in (enqueue, latency, end_to_end, sustained)]
    assert medians == pytest.approx([2, 3, 3, 2], rel=0.05)
    assert all(inside <= whole for inside, whole in zip(enqueue.values, latency.values, strict=True))


def test_a_sustained_window_counts_steps_not_samples() -> None:
    samples = clock.time_sustained(NullSession("ok", Costs(1, 1)), QUICK)
    steps = sum(steps for _, _, steps in samples.windows)
    assert steps % len(samples.values) == 0
    assert 2 <= steps // len(samples.values) <= 25


def test_long_steps_are_timed_one_at_a_time() -> None:
    class Counting(NullSession):
        steps = 0

        def step(self) -> None:
            self.steps += 1
            super().step()

    session = Counting("ok", Costs(60, 1))
    effort = Effort(warm_up_s=0.6, seconds=0.05, min_samples=2, max_samples=10, tolerance=0.05)
    assert clock.steps_within(session, 0.05, 25) == 1
    assert clock.warm_up(session, effort) is True
    assert len(clock.time_device(session, effort).values) == 2
    assert session.steps < 20


def test_windows_are_consecutive_and_short() -> None:
    effort = Effort(warm_up_s=1, seconds=0.35, min_samples=2, max_samples=100_000, tolerance=0.1)
    windows = clock.time_end_to_end(NullSession("ok", Costs(1, 0)), FEEDS, effort).windows
    assert len(windows) >= 3
    assert all(a < b for a, b, _ in windows)
    assert all(earlier[1] == later[0] for earlier, later in pairwise(windows))


def test_too_few_samples_extend_a_phase_up_to_a_limit() -> None:
    effort = Effort(warm_up_s=1, seconds=0.02, min_samples=1000, max_samples=2000, tolerance=0.1)
    samples = clock.time_end_to_end(NullSession("ok", Costs(10, 0)), FEEDS, effort)
    assert 18 <= len(samples.values) <= 22
    assert samples.windows[-1][1] - samples.windows[0][0] == pytest.approx(0.2e9, rel=0.1)


@pytest.mark.parametrize(
    ("samples", "steady"),
    [
        ([100] * 40, True),
        (list(range(1000, 0, -10)), False),
        ([100] * 5, False),
        ([100] * 6, True),
        ([900] * 30 + [100] * 40, True),
    ],
)
def test_times_are_steady_if_their_halves_agree(samples: list[int], steady: bool) -> None:
    assert clock.is_steady(samples, 0.02) is steady


def test_a_warm_up_that_never_becomes_steady_is_reported() -> None:
    class Drifting(NullSession):
        ticks = count(1)

        def step(self) -> None:
            self._null_stream.work(next(self.ticks) / 1000)

    assert clock.warm_up(Drifting("ok", Costs(0, 1)), QUICK) is False
    assert clock.warm_up(NullSession("ok", Costs(0, 1)), QUICK) is True
