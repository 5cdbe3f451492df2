"""Measurement for suite=accuracy: the outputs of a path for the texts of a task. suites/tasks/scoring.py scores them.

Runs in the measuring worker, over any session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from backends.base import Array, Session
from backends.inputs.readout import READOUTS
from backends.inputs.task_batches import scatter_rows
from suites.measuring.measure_run import MeasureRun
from suites.measuring.output_difference import compare_with_reference
from suites.records.facts import Facts
from suites.records.parts import Check
from suites.running.job import Measured
from suites.suite import Question


def measure(run: MeasureRun, question: Question) -> Measured:
    """Run every batch and write its readouts to a file in the folder of the job: [rows, ...] FP32.

    Steps are plain, because a CUDA graph replays the same kernels. A batch with reference hidden states (the first one)
    is checked against them.

    Args:
        run: its arrays are batches and the kind of readout, see backends/inputs/task_batches.py.
    """
    steps: dict[str, int] = {}
    with run.session(steps) as session:
        readouts, checks = _run_batches(session, run.arrays, run.progress)
    path = Path("readouts.npy").resolve()
    np.save(path, readouts)
    return Measured(checks=tuple(checks), facts=Facts().opened(steps), readouts=path)


def _run_batches(
    session: Session, arrays: Mapping[str, Array], progress: Callable[[str], None]
) -> tuple[Array, list[Check]]:
    batches: dict[int, dict[str, Array]] = {}
    head: dict[str, Array] = {}
    for name in arrays:
        owner, _, key = name.partition("/")
        if owner == "head":
            head[key] = arrays[name]
        elif key:
            batches.setdefault(int(owner), {})[key] = arrays[name]
    readouts, read = np.zeros_like(arrays["reference"]), READOUTS[str(arrays["readout"])]
    checks: list[Check] = []
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
            checks.append(Check.of(check, (batch, sequence), cuda_graph=False))
    return readouts, checks
