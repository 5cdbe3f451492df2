"""Measurement for suite=accuracy: the outputs of a path for the texts of a task. suites/tasks/scoring.py scores them.

Runs in the measuring worker, over any session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array, Session, Shape
from backends.inputs.readout import READOUTS
from backends.inputs.task_batches import scatter_rows
from suites.measuring.clock import Effort
from suites.measuring.output_difference import compare_with_reference


def measure(
    session: Session,
    shapes: Sequence[Shape],
    arrays: Mapping[str, Array],
    effort: Effort,
    cuda_graph: bool,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Run every batch and write its readouts to found.npy in the folder of the job: [rows, ...] FP32.

    Steps are plain, because a CUDA graph replays the same kernels.

    Args:
        arrays: batches and the kind of readout, see backends/inputs/task_batches.py.

    Returns:
        The keys of suites/latency/measure.py's `measure`, with a check of each batch that has reference hidden states
        (the first one), and `found`, the path of the file.
    """
    batches: dict[int, dict[str, Array]] = {}
    head: dict[str, Array] = {}
    for name in arrays:
        owner, _, key = name.partition("/")
        if owner == "head":
            head[key] = arrays[name]
        elif key:
            batches.setdefault(int(owner), {})[key] = arrays[name]
    readouts, read = np.zeros_like(arrays["reference"]), READOUTS[str(arrays["readout"])]
    checks: list[dict[str, Any]] = []
    for number, feeds in batches.items():
        if number % 50 == 0:
            progress(f"batch {number} of {len(batches)}")
        rows, hidden = feeds.pop("rows"), feeds.pop("hidden", None)
        session.load(feeds)
        session.step()
        session.wait()
        output, mask = session.fetch(), feeds["attention_mask"]
        scatter_rows(readouts, rows, read(output, mask, head))
        if hidden is not None:
            batch, sequence = mask.shape
            check = compare_with_reference(output, hidden, np.arange(len(hidden)), mask)
            checks.append({"batch": batch, "sequence": sequence, "cuda_graph": False, **check})
    path = Path("found.npy").resolve()
    np.save(path, readouts)
    return {"measurements": [], "checks": checks, "facts": {}, "failures": {}, "found": str(path)}
