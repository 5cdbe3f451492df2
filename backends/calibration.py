"""What onnxruntime's calibrators want: their batches one by one, and a folder for what they write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backends.base import Array

ENTROPY_BINS = 1024
"""Bins of the histograms that entropy calibration chooses a range from. onnxruntime's own number, 128, is that of the
quantized levels, which leaves one range to choose: that of min-max."""


@contextmanager
def alone(source: Path) -> Iterator[Path]:
    """`source` under the same name in a folder that goes afterwards.

    onnxruntime writes temporary files of fixed names beside the model that it is given, so that two processes with one
    model in a cache would read each other's halves.
    """
    with TemporaryDirectory() as folder:
        link = Path(folder) / source.name
        link.symlink_to(source.resolve())
        yield link


def reader(batches: Sequence[Mapping[str, Array]]) -> Any:
    """A CalibrationDataReader of `batches`."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self._batches, None)

    return Reader()
