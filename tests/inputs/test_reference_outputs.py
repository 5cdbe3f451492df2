"""A reference output is computed once for a batch, whichever list of shapes contains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backends.base import Shape
from backends.cache import ArtifactCache
from backends.inputs import batches
from backends.inputs.batches import InputSource, prepare_inputs
from backends.inputs.lengths import Lengths
from backends.inputs.reference_outputs import ReferenceOutputs
from backends.model_output import EMBEDDING, Output


def test_a_new_list_of_shapes_computes_only_new_references(
    tiny: Callable[[str], tuple[Path, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def source(cache: str) -> InputSource:
        return InputSource(*tiny("bert"), Lengths("uniform", "random"), [], 3, "cpu", ArtifactCache(tmp_path / cache))

    loaded: list[Path] = []
    load = batches.load_encoder
    monkeypatch.setattr(batches, "load_encoder", lambda folder: (loaded.append(folder), load(folder))[1])
    short, long, other = Shape(2, 16), Shape(9, 24), Shape(3, 8)
    prepare_inputs(source("used"), (short, long))
    assert len(loaded) == 1
    for shapes in ((short,), (long, short)):
        prepare_inputs(source("used"), shapes)
    assert len(loaded) == 1
    after = prepare_inputs(source("used"), (other, long))
    assert len(loaded) == 2
    fresh = prepare_inputs(source("fresh"), (other, long))
    assert after.sha256 == fresh.sha256
    assert len(list((tmp_path / "used" / "reference").glob("*/reference.npy"))) == 3


def test_the_reference_depends_on_everything_that_changes_it(
    tiny: Callable[[str], tuple[Path, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    outputs = iter(np.arange(10, dtype=np.float32))
    monkeypatch.setattr(
        InputSource, "reference", lambda origin: (calls.append(origin.device), lambda feeds: next(outputs))[1]
    )
    origin = InputSource(*tiny("bert"), Lengths(), [], 3, "cpu", ArtifactCache(tmp_path))
    feeds = {"input_ids": np.ones((2, 4), np.int32), "attention_mask": np.ones((2, 4), np.int32)}
    shorter = {**feeds, "attention_mask": np.tri(2, 4, 2, np.int32)}
    reshaped = {name: array.reshape(4, 2) for name, array in feeds.items()}
    sources = (
        (origin, feeds),
        (origin, shorter),
        (origin, reshaped),
        (replace(origin, device="cuda"), feeds),
        (replace(origin, identity="other"), feeds),
        (replace(origin, output=Output(EMBEDDING)), feeds),
    )
    first = [float(ReferenceOutputs(source).of(given)) for source, given in sources]
    assert first == [0, 1, 2, 3, 4, 5]
    again = [float(ReferenceOutputs(replace(source, seed=4)).of(given)) for source, given in sources]
    assert again == first  # the inputs contain all effects of the seed
    assert len(calls) == len(sources)
