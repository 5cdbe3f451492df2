"""Measurement for suite=layers: compare the outputs of single layers with FP32, to find the first that differs.

Runs in the measuring worker, over any session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from backends.base import Array, Session, Shape
from suites.measuring.clock import Effort
from suites.measuring.output_difference import compare_outputs


def measure(
    session: Session,
    shapes: Sequence[Shape],
    arrays: Mapping[str, Array],
    effort: Effort,
    cuda_graph: bool,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Compare each marked output with FP32, over tokens that are not padding. For `arrays` see
    backends/onnx_/marked_outputs.py."""
    feeds = {name.partition("/")[2]: arrays[name] for name in arrays if name.startswith("feeds/")}
    progress("comparing")
    session.load(feeds)
    session.step()
    session.wait()
    valid = feeds["attention_mask"].astype(bool)
    outputs, reference = session.fetch()[valid], arrays["reference"][valid]
    edges = np.cumsum([0, *arrays["widths"].tolist()])
    layers = [
        {"point": str(point), **layer_errors(outputs[:, low:high], reference[:, low:high])}
        for point, low, high in zip(arrays["points"], edges[:-1], edges[1:], strict=True)
    ]
    return {"measurements": [], "checks": [], "facts": {}, "failures": {}, "layers": layers}


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


def first_above(layers: Sequence[Mapping[str, Any]], threshold: float) -> str:
    """Return the first point that has NaN or Inf, or a relative error above `threshold`; empty if there is none."""
    for layer in layers:
        if layer["nonfinite"] or layer["relative_error"] > threshold:
            return str(layer["point"])
    return ""
