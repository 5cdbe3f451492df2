"""Measurement for suite=layers: compare the outputs of single layers with FP32, to find the first that differs.

Runs in the measuring worker, over any session.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backends.base import Array, Session
from suites.layers.result import Layer, LayerErrors, LayersResult
from suites.measuring.measure_run import MeasureRun
from suites.measuring.output_difference import compare_outputs
from suites.records.facts import Facts
from suites.running.job import Measured
from suites.suite import Question


def measure(run: MeasureRun, question: Question) -> Measured:
    """Compare each marked output with FP32, over tokens that are not padding.

    Args:
        run: its arrays are in the format of backends/onnx_/marked_outputs.py.

    Returns:
        The result is a LayersResult without a threshold.
    """
    steps: dict[str, int] = {}
    with run.session(steps) as session:
        run.progress("comparing")
        layers = _compare_layers(session, run.arrays)
    return Measured(facts=Facts().opened(steps), result=LayersResult(tuple(layers)))


def _compare_layers(session: Session, arrays: Mapping[str, Array]) -> list[Layer]:
    feeds = {name.partition("/")[2]: arrays[name] for name in arrays if name.startswith("feeds/")}
    session.load(feeds)
    session.step()
    session.wait()
    valid = feeds["attention_mask"].astype(bool)
    outputs, reference = session.fetch()[valid], arrays["reference"][valid]
    edges = np.cumsum([0, *arrays["widths"].tolist()])
    return [
        compared_layer(str(point), outputs[:, low:high], reference[:, low:high])
        for point, low, high in zip(arrays["points"], edges[:-1], edges[1:], strict=True)
    ]


def compared_layer(point: str, output: Array, reference: Array) -> Layer:
    """Compare the output of a point with its reference, both [tokens, features]."""
    difference = compare_outputs(output, reference)
    if difference.nonfinite:
        return Layer(point, difference.nonfinite)
    cosine = float(difference.cosines.min())
    return Layer(point, 0, LayerErrors(difference.max_difference, difference.relative_error, cosine))
