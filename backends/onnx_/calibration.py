"""Calibration by onnxruntime: inputs, data reader, histograms collected batch by batch, and scratch folders."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array
from backends.onnx_ import onnx_files

if TYPE_CHECKING:
    import onnx
    from onnxruntime.quantization.calibrate import CalibraterBase, CalibrationDataReader

ENTROPY_BINS = 1024
"""Bins of the histograms for entropy calibration. onnxruntime's default is 128, which equals the number of quantized
levels. With it the only candidate is the range of min-max."""


@dataclass(frozen=True)
class CalibrationInputs:
    """Inputs that run through the FP32 model to find activation ranges.

    Attributes:
        batches: returns the feeds, int32 [batch, sequence] by input name, all of one shape. It is called only if the
            cache does not have the result.
        key: identifies the feeds in the cache.
        trained: learned ranges by place in the graph (backends/int8_learning/fake_quantization.py). They replace
            calibrated ranges.
    """

    batches: Callable[[], Sequence[Mapping[str, Array]]]
    key: Mapping[str, object] = field(default_factory=dict)
    trained: Mapping[str, float] = field(default_factory=dict)


@contextmanager
def private_copy(source: Path) -> Iterator[Path]:
    """Provide `source` under the same name in a temporary folder.

    onnxruntime writes temporary files with fixed names next to the model. Two processes that calibrate the same model
    in the cache would read each other's unfinished files.
    """
    # The weights of a large model are copied, so the folder is on the disk of the cache, which has space for them.
    nearby = source.resolve().parent.parent if onnx_files.is_large(source) else None
    with TemporaryDirectory(prefix=".calibration-", dir=nearby) as folder:
        yield onnx_files.link(source, Path(folder))


def calibration_reader(batches: Sequence[Mapping[str, Array]]) -> CalibrationDataReader:
    """Return a CalibrationDataReader of `batches`."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self._batches, None)

    return Reader()


def limited_to(base: type[CalibraterBase], tensors: Collection[str]) -> type[CalibraterBase]:
    """Return a class like the calibrator `base` that only finds ranges of `tensors`."""

    class Calibrator(base):  # type: ignore[misc]  # onnxruntime has no types; chosen at run time
        def select_tensors_to_calibrate(
            self, model: onnx.ModelProto
        ) -> tuple[set[str], dict[str, onnx.ValueInfoProto]]:
            selected, infos = super().select_tensors_to_calibrate(model)
            return selected & set(tensors), infos

    return Calibrator


def collect_ranges(calibrator: CalibraterBase, batches: Sequence[Mapping[str, Array]]) -> None:
    """Run `batches` through a calibrator, so that it can compute ranges. Its session must exist.

    onnxruntime keeps all outputs of all batches until it makes the histograms, so its memory grows with the number of
    samples. Here a first pass finds the range of each tensor, and a second pass adds up histograms over that range. The
    counts are the same, with one batch in memory at a time.
    """
    from onnxruntime.quantization import calibrate

    if not isinstance(calibrator, calibrate.HistogramCalibrater):
        calibrator.collect_data(calibration_reader(batches))
        return
    absolute = calibrator.method == "percentile" and calibrator.symmetric
    edges: dict[str, _Edges] = {}
    for name, values in _outputs(calibrator, batches):
        if name not in edges:
            edges[name] = _Edges(values)
        edges[name].widen(values)
    counts: dict[str, tuple[Array, Array]] = {}
    for name, values in _outputs(calibrator, batches):
        batch_counts, bins = np.histogram(
            np.absolute(values) if absolute else values,
            calibrator.num_bins,
            range=edges[name].of(absolute),  # type: ignore[arg-type]  # NumPy's types allow float only
        )
        counts[name] = (batch_counts + counts[name][0] if name in counts else batch_counts, bins)
    collector = calibrate.HistogramCollector(
        method=calibrator.method,
        symmetric=calibrator.symmetric,
        num_bins=calibrator.num_bins,
        num_quantized_bins=calibrator.num_quantized_bins,
        percentile=calibrator.percentile,
        scenario=calibrator.scenario,
    )
    for name, (total, bins) in counts.items():
        edge = edges[name]
        histogram = (total, bins.astype(edge.low.dtype)) if absolute else (total, bins)
        collector.histogram_dict[name] = (*histogram, edge.low, edge.high, *(() if absolute else (edge.threshold,)))
    calibrator.collector = collector


def _outputs(calibrator: CalibraterBase, batches: Sequence[Mapping[str, Array]]) -> Iterator[tuple[str, Array]]:
    """Yield the name and the flattened values of each tensor to calibrate, for each batch."""
    names = [output.name for output in calibrator.infer_session.get_outputs()]
    for feeds in batches:
        for name, values in zip(names, calibrator.infer_session.run(None, dict(feeds)), strict=True):
            if name in calibrator.tensors_to_calibrate:
                yield name, values.ravel()


class _Edges:
    """Smallest and largest value of a tensor, and its smallest absolute value, as scalars of the tensor's dtype."""

    def __init__(self, values: Array) -> None:
        self.low: np.floating = values.min()
        self.high: np.floating = values.max()
        self.least: np.floating = np.absolute(values).min()

    def widen(self, values: Array) -> None:
        self.low, self.high = min(self.low, values.min()), max(self.high, values.max())
        self.least = min(self.least, np.absolute(values).min())

    @property
    def threshold(self) -> Array:
        """The largest absolute value, an array without axes."""
        return np.array(self._largest, dtype=self.low.dtype)

    @property
    def _largest(self) -> np.floating:
        return max(abs(self.low), abs(self.high))

    def of(self, absolute: bool) -> tuple[np.floating, np.floating]:
        """Return the limits of the histogram."""
        return (self.least if absolute else -self._largest), self._largest
