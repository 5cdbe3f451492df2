"""The checks of outputs in suite=latency and their times."""

from __future__ import annotations

import numpy as np
from conftest import measure_run

from backends.base import Array, Shape
from backends.null_.null import Costs, NullSession, null_hidden
from suites.latency.measure import measure
from suites.measuring.clock import Effort
from suites.suite import Question

SHAPE = Shape(2, 4)


class Spoilt(NullSession):
    """A session that returns NaN from its `spoilt`th fetch on."""

    def __init__(self, spoilt: int) -> None:
        super().__init__("ok", Costs())
        self._good = spoilt

    def fetch(self) -> Array:
        self._good -= 1
        return super().fetch() * np.float32(1 if self._good >= 0 else np.nan)


def checked(spoilt: int) -> list[tuple[str, int]]:
    """Return when outputs were checked, and the number of non-finite values at each check."""
    ids = np.arange(8, dtype=np.int32).reshape(2, 4)
    arrays = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "reference": null_hidden(ids),
        "rows": np.arange(2),
    }
    named = {f"{SHAPE}/{name}": array for name, array in arrays.items()}
    effort = Effort(warm_up_s=0.01, seconds=0.01, min_samples=2, max_samples=3, tolerance=0.5)
    found = measure(measure_run(lambda: Spoilt(spoilt), [SHAPE], named, effort), Question())
    assert found.failures == {}
    return [(check.when, check.nonfinite) for check in found.checks]


def test_outputs_are_checked_before_anything_is_timed_and_after_it() -> None:
    every = null_hidden(np.zeros((2, 4), np.int32)).size
    assert checked(spoilt=0) == [("first use", every), ("after timing", every)]
    assert checked(spoilt=1) == [("first use", 0), ("after timing", every)]
    assert checked(spoilt=1000) == [("first use", 0), ("after timing", 0)]
