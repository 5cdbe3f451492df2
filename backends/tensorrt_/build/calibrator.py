"""Implicit INT8 calibration. TensorRT runs representative inputs through its own FP32 engine. It chooses the ranges and
the layers that it quantizes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backends.atomic_file import write_atomically
from backends.base import Unsupported
from backends.cuda import DeviceArray
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi

logger = logging.getLogger(__name__)


def calibrator(api: TensorRTApi, inputs: Path, method: str, cache: Path) -> object:
    """Return an IInt8Calibrator of TensorRT that reads its batches from an .npz file.

    Args:
        inputs: the file, see backends.base.Source; `input_ids` is [batches, batch size, sequence].
        method: "entropy" or "minmax".
        cache: file for TensorRT's ranges. A second build reads the file and runs no batch.

    Raises:
        Unsupported: this release has no calibrators.
    """
    trt, can = api.trt, api.can
    if not can.calibration:
        raise Unsupported(f"TensorRT {api.version} has no calibrators; use quantization.scheme=explicit")
    base = trt.IInt8EntropyCalibrator2 if method == "entropy" else trt.IInt8MinMaxCalibrator
    arrays = np.load(inputs, allow_pickle=False)
    batches = {name: arrays[name] for name in arrays.files}
    count, rows, _ = batches["input_ids"].shape

    class Calibrator(base):  # type: ignore[misc, valid-type]  # the base is chosen at run time
        def __init__(self) -> None:
            super().__init__()
            self._next = 0
            self._arrays = {name: DeviceArray(array[0].nbytes) for name, array in batches.items()}

        def get_batch_size(self) -> int:
            return int(rows)

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            if self._next == count:
                return None
            for name, array in batches.items():
                self._arrays[name].copy_from(array[self._next])
            self._next += 1
            logger.info("calibrating, batch %d of %d", self._next, count)
            return [self._arrays[name].pointer for name in names]

        def read_calibration_cache(self) -> bytes | None:
            return cache.read_bytes() if cache.exists() else None

        def write_calibration_cache(self, content: bytes) -> None:
            write_atomically(cache, content)  # builders for other profiles share the file

    return Calibrator()
