"""GPU tests with a real libth_transformer.so, whose path is in SUITES_FASTER_TRANSFORMER."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from fake_library import perturbed_checkpoint

from backends.base import BuildSpec, Shape
from backends.cache import ArtifactCache
from backends.faster_transformer_.description import FasterTransformerOptions
from backends.faster_transformer_.faster_transformer import FasterTransformer
from backends.inputs.batches import InputSource, prepare_inputs
from backends.inputs.lengths import Lengths
from backends.model.identity import identity_of
from backends.onnx_.onnx_source import prepare_source
from backends.options import Layout
from backends.quantization_options import QuantizationOptions
from suites.measuring.machine import gpus
from suites.measuring.output_difference import compare_with_reference

LIBRARY = os.environ.get("SUITES_FASTER_TRANSFORMER", "")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU is visible"),
    pytest.mark.skipif(not LIBRARY, reason="SUITES_FASTER_TRANSFORMER is not the path of libth_transformer.so"),
]
TEXTS = ["a line", "another line", "a third"]
CALIBRATION = QuantizationOptions(samples=16, sequence=24)


@pytest.mark.parametrize(
    ("precision", "mode", "least"), [("fp32", 1, 0.999), ("fp16", 1, 0.999), ("int8", 1, 0.98), ("int8", 2, 0.95)]
)
@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("distribution", ["full", "uniform"])
def test_outputs_match_the_reference(
    precision: str, mode: int, least: float, layout: Layout, distribution: str, tmp_path: Path
) -> None:
    folder = perturbed_checkpoint(tmp_path, {"model_type": "bert", **TINY, "intermediate_size": 256})
    cache, shape, identity = ArtifactCache(tmp_path / "cache"), Shape(4, 32), identity_of(folder)
    options = FasterTransformerOptions(LIBRARY, mode, layout)
    requested = BuildSpec(precision, gpus()[0].device, (shape,), False, cache.root, options, CALIBRATION)
    backend = FasterTransformer()
    backend.check(requested)
    source = prepare_source(folder, identity, backend.source_form(requested), CALIBRATION, TEXTS, 0, cache)
    origin = InputSource(folder, identity, Lengths(distribution, "random", 3), TEXTS, 0, "cpu", cache)
    arrays = np.load(prepare_inputs(origin, [shape]).path)
    own = {name.split("/")[1]: arrays[name] for name in arrays.files}
    feeds = {name: own[name] for name in own if name not in ("reference", "rows")}
    with backend.open(requested, backend.build(requested, source)) as session:
        session.load(feeds)
        session.step()
        output = session.fetch()
    check = compare_with_reference(output, own["reference"], own["rows"], feeds["attention_mask"])
    assert check.nonfinite == 0
    assert check.cosine is not None
    assert check.cosine >= least
