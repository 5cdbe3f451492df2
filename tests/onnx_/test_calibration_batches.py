"""Histograms that are collected batch by batch equal those of all batches at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.cache import ArtifactCache
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.onnx_.calibration import calibration_reader, collect_ranges, private_copy
from backends.onnx_.onnx_source import export_onnx
from backends.onnx_.quantize import QUANTIZED_OPERATORS

Tiny = Callable[[str], tuple[Path, str]]

CALIBRATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "percentile": ("PercentileCalibrater", {"percentile": 99.0, "symmetric": True}),
    "percentile of two ends": ("PercentileCalibrater", {"percentile": 99.9, "symmetric": False}),
    "entropy": ("EntropyCalibrater", {"num_bins": 128}),
    "entropy, symmetric": ("EntropyCalibrater", {"num_bins": 128, "symmetric": True}),
    "distribution": ("DistributionCalibrater", {"num_bins": 2048}),
    "minmax": ("MinMaxCalibrater", {}),
}


@pytest.mark.parametrize("kind", CALIBRATORS)
def test_ranges_equal_those_of_all_batches_at_once(kind: str, tiny: Tiny, shared_cache: ArtifactCache) -> None:
    from onnxruntime.quantization import calibrate

    folder, sha256 = tiny("bert")
    onnx = export_onnx(folder, sha256, shared_cache)
    batches = calibration_batches(folder, [], CalibrationSize(24, 16), 0)
    assert len(batches) == 3
    name, options = CALIBRATORS[kind]

    def ranges(feed: Callable[[Any], None]) -> Any:
        with private_copy(onnx.path) as link:
            augmented = str(link.with_name("augmented.onnx"))
            calibrator = getattr(calibrate, name)(str(link), QUANTIZED_OPERATORS, augmented, **options)
            calibrator.augment_graph()
            calibrator.create_inference_session()
            feed(calibrator)
            return calibrator.compute_data()

    whole = ranges(lambda calibrator: calibrator.collect_data(calibration_reader(batches)))
    by_batch = ranges(lambda calibrator: collect_ranges(calibrator, batches))
    assert list(by_batch.keys()) == list(whole.keys())
    for tensor in whole.keys():  # noqa: SIM118  not a mapping
        expected, collected = whole[tensor].to_dict(), by_batch[tensor].to_dict()
        assert expected.keys() == collected.keys()
        for field, values in expected.items():
            np.testing.assert_array_equal(np.asarray(collected[field]), np.asarray(values), err_msg=f"{tensor} {field}")


def test_at_most_one_batch_of_outputs_is_in_memory(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    """The outputs of a batch are freed before the next batch runs."""
    import weakref

    from onnxruntime.quantization import calibrate

    folder, sha256 = tiny("bert")
    onnx = export_onnx(folder, sha256, shared_cache)
    alive: list[weakref.ref[Any]] = []
    most = 0

    class Watched:
        def __init__(self, session: Any) -> None:
            self._session = session
            self.get_outputs, self.get_inputs = session.get_outputs, session.get_inputs

        def run(self, *arguments: Any) -> Any:
            nonlocal most
            most = max(most, sum(output() is not None for output in alive))
            outputs = self._session.run(*arguments)
            alive.extend(weakref.ref(output) for output in outputs)
            return outputs

    with private_copy(onnx.path) as link:
        calibrator = calibrate.PercentileCalibrater(
            str(link), QUANTIZED_OPERATORS, str(link.with_name("augmented.onnx"))
        )
        calibrator.augment_graph()
        calibrator.create_inference_session()
        calibrator.infer_session = Watched(calibrator.infer_session)
        collect_ranges(calibrator, calibration_batches(folder, [], CalibrationSize(32, 16), 0))
    outputs = len(calibrator.infer_session.get_outputs())
    assert len(alive) == 8 * outputs
    assert most <= outputs
