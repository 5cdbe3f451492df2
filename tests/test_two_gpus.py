"""Records of twelve cells on one and on two GPUs: less time, equal figures, and one cell at a time on each GPU."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest

from docs.generate.two_gpus import BatchRun, batch_run, end_of, graph_p50_ms, start_of
from suites.records.record import OK

ROUNDED = timedelta(seconds=1)
"""Records give their end in whole seconds."""


@pytest.fixture(scope="module")
def one() -> BatchRun:
    return batch_run("one_gpu")


@pytest.fixture(scope="module")
def two() -> BatchRun:
    return batch_run("two_gpus")


def test_two_gpus_take_at_most_six_tenths_of_the_time(one: BatchRun, two: BatchRun) -> None:
    assert len(two.records) == 12
    assert {record.outcome for record in two.records} == {OK}
    assert two.seconds <= 0.6 * two.work_s
    assert len(one.records) < len(two.records)
    assert two.seconds <= 0.6 * one.seconds


def test_times_are_equal(one: BatchRun, two: BatchRun) -> None:
    for record in one.records:
        other = two.record(record.cell.id)
        assert other is not None
        assert graph_p50_ms(other) == pytest.approx(graph_p50_ms(record), rel=0.02)


@pytest.mark.parametrize("name", ["one_gpu", "two_gpus"])
def test_a_gpu_builds_and_measures_one_cell_at_a_time(name: str) -> None:
    records = batch_run(name).records
    gpus = {record.environment.uuid for record in records}
    assert len(gpus) == (1 if name == "one_gpu" else 2)
    for gpu in gpus:
        cells = [record for record in records if record.environment.uuid == gpu]
        for before, after in pairwise(cells):
            assert start_of(after) >= end_of(before) - ROUNDED
