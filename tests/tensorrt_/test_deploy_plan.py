"""Rows of each token in the output of a plan, for every layout of its inputs."""

from __future__ import annotations

import numpy as np
import pytest

from backends.tensorrt_.deploy_plan import _arranged
from backends.tensorrt_.runtime.layout import Columns, Layout, Packed, Rows

LENGTHS = (5, 3)
IDS = np.array([[10, 11, 12, 13, 14, 0], [20, 21, 22, 0, 0, 0]], np.int32)
FEEDS = {
    "input_ids": IDS,
    "attention_mask": (IDS > 0).astype(np.int32),
    "token_type_ids": np.zeros_like(IDS),
}


@pytest.mark.parametrize("layout", [Rows(tuple(FEEDS)), Columns(), Packed(), Packed(positions=True, multiple=4)])
def test_places_are_those_of_the_tokens_in_the_output(layout: Layout) -> None:
    batch = _arranged(layout, FEEDS)
    flat = np.asarray(batch.arrays["input_ids"]).reshape(-1)
    for row, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(flat[batch.places[row, :length]], IDS[row, :length])
