"""The accuracy question: what embeddings does a path give for a task's texts? suites/scoring.py judges them.

Runs in the measuring worker, over any session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array, Session, Shape
from backends.evaluation import pool
from suites.clock import Effort


def measure(
    session: Session,
    shapes: Sequence[Shape],
    arrays: Mapping[str, Array],
    effort: Effort,
    cuda_graph: bool,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Embeddings of every batch in `arrays` (see backends/evaluation.py): [texts, hidden] FP32, mean-pooled, written to
    embeddings.npy in the job's folder. Plain steps: a CUDA graph replays the same kernels."""
    batches: dict[int, dict[str, Array]] = {}
    for name in arrays:
        number, _, key = name.partition("/")
        if key:
            batches.setdefault(int(number), {})[key] = arrays[name]
    found = np.zeros_like(arrays["reference"])
    for place, feeds in batches.items():
        if place % 50 == 0:
            progress(f"batch {place} of {len(batches)}")
        rows = feeds.pop("rows")
        session.load(feeds)
        session.step()
        session.wait()
        found[rows] = pool(session.fetch(), feeds["attention_mask"])[: len(rows)]
    path = Path("embeddings.npy").resolve()
    np.save(path, found)
    return {"measurements": [], "checks": [], "facts": {}, "failures": {}, "embeddings": str(path)}
