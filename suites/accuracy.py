"""The accuracy question: what does a path make of a task's texts? suites/tasks/scoring.py judges it.

Runs in the measuring worker, over any session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array, Session, Shape
from backends.evaluation import put
from backends.readout import READOUTS
from suites.clock import Effort
from suites.latency import compare


def measure(
    session: Session,
    shapes: Sequence[Shape],
    arrays: Mapping[str, Array],
    effort: Effort,
    cuda_graph: bool,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """What `arrays` (see backends/evaluation.py) want read of every batch: [rows, ...] FP32, in found.npy in the job's
    folder, and a check of the first batch's hidden states. Plain steps: a CUDA graph replays the same kernels."""
    batches: dict[int, dict[str, Array]] = {}
    head: dict[str, Array] = {}
    for name in arrays:
        owner, _, key = name.partition("/")
        if owner == "head":
            head[key] = arrays[name]
        elif key:
            batches.setdefault(int(owner), {})[key] = arrays[name]
    found, read = np.zeros_like(arrays["reference"]), READOUTS[str(arrays["readout"])]
    checks: list[dict[str, Any]] = []
    for place, feeds in batches.items():
        if place % 50 == 0:
            progress(f"batch {place} of {len(batches)}")
        rows, hidden = feeds.pop("rows"), feeds.pop("hidden", None)
        session.load(feeds)
        session.step()
        session.wait()
        output, mask = session.fetch(), feeds["attention_mask"]
        put(found, rows, read(output, mask, head))
        if hidden is not None:
            batch, sequence = mask.shape
            check = compare(output, hidden, np.arange(len(hidden)), mask)
            checks.append({"batch": batch, "sequence": sequence, "cuda_graph": False, **check})
    path = Path("found.npy").resolve()
    np.save(path, found)
    return {"measurements": [], "checks": checks, "facts": {}, "failures": {}, "found": str(path)}
