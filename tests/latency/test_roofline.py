"""Operations per byte, and rates and shares in exported data, in tables of workloads and on the HTML page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from markdown_rows import rows

from backends.model.encoder_sizes import EncoderSizes
from suites.data_out.latency_data import latency_data
from suites.html_report.page_data import page_data
from suites.latency.achieved import bandwidth, intensity
from suites.latency.figures import latency_rows
from suites.latency.workload_tables import workload_tables
from suites.records.record import Record, write_record
from suites.records.results_folder import machine_folders

MakeRecord = Callable[..., Record]

SIZES = {"layers": 2, "hidden": 64, "attention": 64, "key_value": 64, "intermediate": 128}
ARTIFACTS = {
    "inputs": {"notes": {"tokens": "random", "shapes": {"2x16": {"tokens": 32, "cut": 0}}}},
    "weights": {"sizes": SIZES},
}
OPERATIONS = 2 * 32 * (2 * (4 * 64**2 + 2 * 64 * 128) + 4 * 64 * 16)
"""Of 2 x 16 tokens."""

VALUES = 2 * ((4 * 64**2 + 2 * 64 * 128) + 32 * (12 * 64 + 2 * 128))
"""A layer's weights, and for each token 4 E + 2 I of linear layers and 8 E of queries, keys, values and attention."""


def ceilings(make_record: MakeRecord) -> Record:
    """Return a record with a product of 0.002 TFLOP/s, a copy of 1 GB/s and a triad of 3 GB/s."""
    measured = [("product", "fp32", 100, 10**6), ("copy", "", 10**6, 2 * 10**6), ("triad", "", 10**6, 10**6)]
    scores = {
        "ceilings": [
            {"name": name, "precision": precision, "size": size, "samples": [time], "steady": True}
            for name, precision, size, time in measured
        ],
        "left_out": [],
    }
    return make_record(suite="ceilings", model="none", measurements=(), checks=(), scores=scores)


def test_operations_per_byte(make_record: MakeRecord) -> None:
    assert EncoderSizes(**SIZES).values_moved(32) == VALUES
    for precision, width in (("fp32", 4), ("fp16", 2), ("int8", 1)):
        (row,) = latency_rows([make_record(precision=precision, artifacts=ARTIFACTS)], {})
        assert intensity(row) == pytest.approx(OPERATIONS / (width * VALUES))
    (row,) = latency_rows([make_record()], {})
    assert intensity(row) is None


def test_the_bandwidth_is_that_of_the_fastest_copy(make_record: MakeRecord) -> None:
    record = make_record(artifacts=ARTIFACTS)
    assert bandwidth(record, [ceilings(make_record)]) == pytest.approx(3.0)
    assert bandwidth(record, []) is None


def test_data_rows_have_the_rate_of_their_own_passes(make_record: MakeRecord) -> None:
    record = make_record(artifacts=ARTIFACTS)
    plain, graph = latency_data([record], {}, ceilings=[ceilings(make_record)])
    for row in (plain, graph):
        assert row.tflops == pytest.approx(OPERATIONS * row.sequences_per_second / 2 / 1e12)
        assert row.ceiling_percent == pytest.approx(100 * row.tflops / 0.002)
    assert graph.tflops > plain.tflops
    assert latency_data([record], {})[0].ceiling_percent is None


def test_a_workload_has_its_rate_and_share(make_record: MakeRecord) -> None:
    lengths = {"distribution": "uniform", "tokens": "random", "low": 8}
    table = workload_tables([make_record(lengths=lengths, artifacts=ARTIFACTS)], (), [ceilings(make_record)])
    (row,) = rows(table)
    rate = OPERATIONS / 2 * float(row["seq/s"].replace(",", "")) / 1e12
    assert float(row["TFLOP/s"]) == pytest.approx(rate, rel=0.01)
    assert float(row["% of ceiling"].rstrip("%")) == pytest.approx(100 * rate / 0.002, rel=0.01)


@pytest.mark.parametrize("measured", [True, False])
def test_the_page_has_a_roofline_where_the_machine_has_ceilings(
    measured: bool, make_record: MakeRecord, tmp_path: Path
) -> None:
    write_record(tmp_path, make_record(artifacts=ARTIFACTS))
    if measured:
        write_record(tmp_path, ceilings(make_record))
    (workload,) = page_data(machine_folders(tmp_path))["workloads"]  # type: ignore[misc]
    assert workload["roofs"] == ({"tflops": {"fp32": 0.002}, "gb_s": 3.0} if measured else {})
    (row,) = workload["rows"]
    assert row["intensity"] == pytest.approx(OPERATIONS / (4 * VALUES), rel=1e-5)
    assert row["tflops"] > 0
