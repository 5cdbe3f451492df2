"""The layers question: where along a model does a path leave FP32? Runs in the measuring worker, over any session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from backends.base import Array, Session, Shape
from suites.clock import Effort


def measure(
    session: Session,
    shapes: Sequence[Shape],
    arrays: Mapping[str, Array],
    effort: Effort,
    cuda_graph: bool,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Each marked output against FP32's, over tokens that are not padding (`arrays`: see backends/marks.py)."""
    feeds = {name.partition("/")[2]: arrays[name] for name in arrays if name.startswith("feeds/")}
    progress("comparing")
    session.load(feeds)
    session.step()
    session.wait()
    kept = feeds["attention_mask"].astype(bool)
    found, reference = session.fetch()[kept].astype(np.float64), arrays["reference"][kept].astype(np.float64)
    edges = np.cumsum([0, *arrays["widths"].tolist()])
    layers = [
        {"point": str(point), **compared(found[:, low:high], reference[:, low:high])}
        for point, low, high in zip(arrays["points"], edges[:-1], edges[1:], strict=True)
    ]
    return {"measurements": [], "checks": [], "facts": {}, "failures": {}, "layers": layers}


def compared(found: Array, reference: Array) -> dict[str, Any]:
    """Of [tokens, features]: nonfinite, and where it is 0 max_difference, relative_error (of the Frobenius norms) and
    cosine_min over tokens."""
    nonfinite = int(np.count_nonzero(~np.isfinite(found)))
    if nonfinite:
        return {"nonfinite": nonfinite}
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
    return {
        "nonfinite": 0,
        "max_difference": float(np.abs(found - reference).max()),
        "relative_error": float(np.linalg.norm(found - reference) / np.linalg.norm(reference)),
        "cosine_min": float(((found * reference).sum(1) / np.maximum(norms, 1e-30)).min()),
    }


def first_past(layers: Sequence[Mapping[str, Any]], threshold: float) -> str:
    """The first point with NaN or Inf, or whose relative error is above `threshold`; empty if there is none."""
    for layer in layers:
        if layer["nonfinite"] or layer["relative_error"] > threshold:
            return str(layer["point"])
    return ""
