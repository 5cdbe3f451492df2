"""The values that the layers after an encoder of plugins compute, against the pooling of the reference."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from evaluated_network import TRT, EvaluatedNetwork

from backends.model.heads import Head, Layer
from backends.tensorrt_.plugins.basic_layers import BasicLayers
from backends.tensorrt_.plugins.head_layers import HeadLayers

WIDTH, LONGEST = 8, 9
LENGTHS = (5, 7, 2)
MODES = ("mean", "cls", "lasttoken", "mean_sqrt_len_tokens", "weightedmean", "max")
RANDOM = np.random.default_rng(0)
STATES = [RANDOM.normal(size=(length, WIDTH)).astype(np.float32) for length in LENGTHS]


def expected(mode: str) -> np.ndarray:
    """Return one vector for each sequence, by the definitions of sentence-transformers."""
    pooled: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "mean": lambda rows: rows.mean(0),
        "cls": lambda rows: rows[0],
        "lasttoken": lambda rows: rows[-1],
        "mean_sqrt_len_tokens": lambda rows: rows.sum(0) / len(rows) ** 0.5,
        "weightedmean": lambda rows: np.average(rows, 0, np.arange(1, len(rows) + 1)),
        "max": lambda rows: rows.max(0),
    }
    return np.array([pooled[mode](rows) for rows in STATES])


def computed(pooling: tuple[str, ...], packed: bool, layers: tuple[Layer, ...] = (), other_tokens: int = 0) -> Any:
    """Return the output for STATES. `other_tokens` follow packed tokens, with undefined values."""
    api: Any = SimpleNamespace(trt=TRT, can=SimpleNamespace(weak_typing=True, int64_sizes=False))
    network: Any = EvaluatedNetwork()
    if packed:
        undefined = np.full((other_tokens, WIDTH), np.nan, np.float32)
        hidden = np.concatenate([*STATES, undefined])[..., None, None]
        ids = np.zeros(len(hidden), np.int32)
        places = np.cumsum((0, *LENGTHS), dtype=np.int32)
    else:
        places = np.array([[position < length for length in LENGTHS] for position in range(max(LENGTHS))], np.int32)
        hidden = RANDOM.normal(size=(*places.shape, WIDTH, 1, 1)).astype(np.float32) * 9
        for column, rows in enumerate(STATES):
            hidden[: len(rows), column, :, 0, 0] = rows
        ids = np.zeros(places.shape, np.int32)
    most = len(LENGTHS) * LONGEST if packed else LONGEST
    basic = BasicLayers(api, network, half=False)
    head = HeadLayers(basic, Head(pooling, layers), places, packed, ids, WIDTH, most, other_tokens > 0)
    return head.output(hidden)


@pytest.mark.parametrize("other_tokens", [0, 2])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "max"])
def test_packed_tokens_are_pooled(mode: str, other_tokens: int) -> None:
    np.testing.assert_allclose(computed((mode,), True, (), other_tokens), expected(mode), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_padded_sequences_shorter_than_the_longest_of_the_engine_are_pooled(mode: str) -> None:
    np.testing.assert_allclose(computed((mode,), False), expected(mode), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("modes", [("mean", "weightedmean", "lasttoken"), ("cls", "lasttoken"), ("cls", "mean")])
def test_several_poolings_are_concatenated_and_normalized(modes: tuple[str, ...], packed: bool) -> None:
    joined = np.concatenate([expected(mode) for mode in modes], 1)
    scaled = joined / np.linalg.norm(joined, axis=1, keepdims=True)
    found = computed(modes, packed, (Layer("normalize"),), 2 if packed else 0)
    np.testing.assert_allclose(found, scaled, rtol=1e-5, atol=1e-6)
