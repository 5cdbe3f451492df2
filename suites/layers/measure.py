"""Measurement for suite=layers: compare the outputs of single layers with FP32, to find the first that differs.

Runs in the measuring worker, over any session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backends.base import Array, Session
from suites.measuring.measure_run import MeasureRun
from suites.measuring.output_difference import compare_outputs
from suites.running.job import Measured
from suites.suite import Question


def measure(run: MeasureRun, question: Question) -> Measured:
    """Compare each marked output with FP32, over tokens that are not padding.

    Args:
        run: its arrays are in the format of backends/onnx_/marked_outputs.py.

    Returns:
        The result has `layers`: for each point the values of `layer_errors`.
    """
    facts: dict[str, object] = {}
    with run.session(facts) as session:
        run.progress("comparing")
        layers = _compare_layers(session, run.arrays)
    return Measured(facts=facts, result={"layers": layers})


def _compare_layers(session: Session, arrays: Mapping[str, Array]) -> list[dict[str, Any]]:
    feeds = {name.partition("/")[2]: arrays[name] for name in arrays if name.startswith("feeds/")}
    session.load(feeds)
    session.step()
    session.wait()
    valid = feeds["attention_mask"].astype(bool)
    outputs, reference = session.fetch()[valid], arrays["reference"][valid]
    edges = np.cumsum([0, *arrays["widths"].tolist()])
    return [
        {"point": str(point), **layer_errors(outputs[:, low:high], reference[:, low:high])}
        for point, low, high in zip(arrays["points"], edges[:-1], edges[1:], strict=True)
    ]


def layer_errors(output: Array, reference: Array) -> dict[str, Any]:
    """Compare an output with its reference, both [tokens, features].

    Returns:
        nonfinite, the number of NaN and Inf; where it is 0, also max_difference (absolute), relative_error (Frobenius
        norm of the difference over that of the reference) and cosine_min, the smallest over tokens.
    """
    difference = compare_outputs(output, reference)
    if difference.nonfinite:
        return {"nonfinite": difference.nonfinite}
    return {
        "nonfinite": 0,
        "max_difference": difference.max_difference,
        "relative_error": difference.relative_error,
        "cosine_min": float(difference.cosines.min()),
    }
