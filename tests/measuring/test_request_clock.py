"""Parts of a request, with programmed costs on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from backends.base import Array, Feeds
from backends.null_.null import Costs, NullSession
from suites.measuring import clock
from suites.measuring.clock import Effort
from suites.measuring.request_clock import time_request_parts

QUICK = Effort(warm_up_s=0.3, seconds=0.05, min_samples=10, max_samples=200, tolerance=0.05)
FEEDS = {"input_ids": np.ones((1, 4), np.int32)}


class Packing(NullSession):
    """A session that packs for 4 ms and unpacks its output for 5 ms on the host."""

    def changing(self, feeds: Feeds) -> Iterator[str]:
        self._null_stream.spend(4)
        yield "arrange"
        yield from super().changing(feeds)

    def fetch(self) -> Array:
        output = super().fetch()
        self._null_stream.spend(5)
        return output


def test_parts_of_a_request_and_their_sum(simulated: Callable[[int], None]) -> None:
    simulated(0)
    session = Packing("ok", Costs(step_ms=4, gpu_ms=3, copy_ms=8))
    parts = time_request_parts(session, FEEDS, QUICK)
    medians = [float(np.median(part.values)) / 1e6 for part in parts]
    assert medians == pytest.approx([4, 8, 4, 3, 5], rel=0.15)
    assert len({len(part.values) for part in parts}) == 1
    whole = float(np.median(clock.time_end_to_end(session, FEEDS, QUICK).values)) / 1e6
    # Without waits, the device copies in while the host launches the step.
    assert whole == pytest.approx(20, rel=0.1)
    assert whole < sum(medians) - 2
