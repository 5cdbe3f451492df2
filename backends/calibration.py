"""Calibration by onnxruntime: batches, histograms that are collected batch by batch, and scratch folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from backends import onnx_files
from backends.base import Array

ENTROPY_BINS = 1024
"""Bins of the histograms that entropy calibration chooses a range from. onnxruntime's own number, 128, is that of the
quantized levels, which leaves one range to choose: that of min-max."""


@contextmanager
def alone(source: Path) -> Iterator[Path]:
    """`source` under the same name in a folder that is removed afterwards.

    onnxruntime writes temporary files of fixed names beside the model that it is given, so that two processes with one
    model in a cache would read each other's halves.
    """
    # The weights of a large model are copied: where the cache lies there is room for them.
    nearby = source.resolve().parent.parent if onnx_files.is_large(source) else None
    with TemporaryDirectory(prefix=".calibration-", dir=nearby) as folder:
        yield onnx_files.link(source, Path(folder))


def reader(batches: Sequence[Mapping[str, Array]]) -> Any:
    """A CalibrationDataReader of `batches`."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self._batches, None)

    return Reader()


def collect(calibrator: Any, batches: Sequence[Mapping[str, Array]]) -> None:
    """Run `batches` through a calibrator whose session was created, so that it can compute ranges.

    onnxruntime keeps all outputs of all batches until it makes their histograms, so that memory grows with the number
    of samples. Here a first pass finds the range of each tensor, and a second one adds up histograms over that range:
    the same counts, with one batch in memory at a time.
    """
    from onnxruntime.quantization import calibrate

    if not isinstance(calibrator, calibrate.HistogramCalibrater):
        calibrator.collect_data(reader(batches))
        return
    absolute = calibrator.method == "percentile" and calibrator.symmetric
    edges: dict[str, _Edges] = {}
    for name, values in _outputs(calibrator, batches):
        edges.setdefault(name, _Edges()).widen(values)
    counts: dict[str, Any] = {}
    for name, values in _outputs(calibrator, batches):
        found, bins = np.histogram(
            np.absolute(values) if absolute else values, calibrator.num_bins, range=edges[name].of(absolute)
        )
        counts[name] = (found + counts[name][0] if name in counts else found, bins)
    collector = calibrate.HistogramCollector(
        method=calibrator.method,
        symmetric=calibrator.symmetric,
        num_bins=calibrator.num_bins,
        num_quantized_bins=calibrator.num_quantized_bins,
        percentile=calibrator.percentile,
        scenario=calibrator.scenario,
    )
    for name, (found, bins) in counts.items():
        edge = edges[name]
        form = (found, bins.astype(edge.low.dtype)) if absolute else (found, bins)
        collector.histogram_dict[name] = (*form, edge.low, edge.high, *(() if absolute else (edge.threshold,)))
    calibrator.collector = collector


def _outputs(calibrator: Any, batches: Sequence[Mapping[str, Array]]) -> Iterator[tuple[str, Array]]:
    """Name and values, flat, of each tensor to calibrate, batch after batch."""
    names = [output.name for output in calibrator.infer_session.get_outputs()]
    for feeds in batches:
        for name, values in zip(names, calibrator.infer_session.run(None, dict(feeds)), strict=True):
            if name in calibrator.tensors_to_calibrate:
                yield name, values.ravel()


class _Edges:
    """The least and the largest value of a tensor, and the least absolute one, as scalars of its own type."""

    low: Any = None

    def widen(self, values: Array) -> None:
        low, high, least = values.min(), values.max(), np.absolute(values).min()
        if self.low is None:
            self.low, self.high, self.least = low, high, least
        self.low, self.high, self.least = min(self.low, low), max(self.high, high), min(self.least, least)

    @property
    def threshold(self) -> Any:
        """The largest absolute value."""
        return np.array(max(abs(self.low), abs(self.high)), dtype=self.low.dtype)

    def of(self, absolute: bool) -> tuple[Any, Any]:
        """Between which values the histogram lies."""
        return (self.least, self.threshold[()]) if absolute else (-self.threshold, self.threshold)
