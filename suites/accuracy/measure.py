"""Measurement for suite=accuracy: the outputs of a path for the texts of a task. suites/tasks/scoring.py scores them.

Runs in the measuring worker, over any session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from backends.base import Array, Session
from backends.inputs.task_batches import masked, scatter_rows
from suites.measuring.measure_run import MeasureRun
from suites.measuring.output_difference import compare_with_reference
from suites.records.facts import Facts
from suites.records.parts import Check
from suites.running.job import Measured
from suites.suite import Question


def measure(run: MeasureRun, question: Question) -> Measured:
    """Run every batch and write its outputs to a file in the folder of the job: [rows, ...] FP32.

    Steps are plain, because a CUDA graph replays the same kernels. The first batch is checked against the reference.

    Args:
        run: its arrays are batches, see backends/inputs/task_batches.py.
    """
    steps: dict[str, int] = {}
    with run.session(steps) as session:
        outputs, checks = _run_batches(session, run.arrays, run.progress)
    path = Path("readouts.npy").resolve()
    np.save(path, outputs)
    return Measured(checks=tuple(checks), facts=Facts().opened(steps), readouts=path)


def _run_batches(
    session: Session, arrays: Mapping[str, Array], progress: Callable[[str], None]
) -> tuple[Array, list[Check]]:
    batches: dict[int, dict[str, Array]] = {}
    for name in arrays:
        owner, _, key = name.partition("/")
        if key:
            batches.setdefault(int(owner), {})[key] = arrays[name]
    outputs, reference = np.zeros_like(arrays["reference"]), arrays["reference"]
    checks: list[Check] = []
    for number, feeds in batches.items():
        if number % 50 == 0:
            progress(f"batch {number} of {len(batches)}")
        rows = feeds.pop("rows")
        session.load(feeds)
        session.step()
        session.wait()
        output, mask = session.fetch(), feeds["attention_mask"]
        scatter_rows(outputs, rows, masked(output, mask))
        if not number:
            batch, sequence = mask.shape
            expected = reference[rows] if output.ndim == 2 else reference[rows, :sequence]
            check = compare_with_reference(output, expected, np.arange(len(rows)), mask)
            checks.append(Check.of(check, (batch, sequence), cuda_graph=False))
    return outputs, checks
