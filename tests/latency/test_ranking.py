from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from suites.latency.figures import latency_rows
from suites.latency.ranking import Baseline, rankings
from suites.records.record import Record

MakeRecord = Callable[..., Record]


def _samples(milliseconds: float) -> tuple[int, ...]:
    return (int(milliseconds * 1e6),) * 30


def test_rows_are_sorted_by_time_and_compared_with_the_baseline(make_record: MakeRecord) -> None:
    records = [
        make_record(backend="torch_eager", precision="fp32", samples=_samples(4)),
        make_record(backend="ort", precision="fp16", samples=_samples(1)),
        make_record(backend="trt", precision="fp16", samples=_samples(2)),
    ]
    ranking = rankings(records, {})[0]
    assert [ranked.row.record.cell.backend for ranked in ranking.rows] == ["ort", "trt", "torch_eager"]
    assert [ranked.speedup for ranked in ranking.rows] == [4.0, 2.0, 1.0]
    other = rankings(records, {}, Baseline("trt", "fp16"))[0]
    assert [ranked.speedup for ranked in other.rows] == [2.0, 1.0, 0.5]
    none = rankings(records, {}, Baseline("trt", "int8"))[0]
    assert [ranked.speedup for ranked in none.rows] == [None, None, None]


def test_a_baseline_without_a_precision_is_fp32() -> None:
    assert Baseline.parse("ort/fp16") == Baseline("ort", "fp16")
    assert Baseline.parse("ort") == Baseline("ort", "fp32")
    assert str(Baseline()) == "torch_eager fp32"


def test_an_invalid_row_comes_last_with_its_reason_and_is_no_baseline(make_record: MakeRecord) -> None:
    good, bad = make_record(backend="ort", samples=_samples(2)), make_record(backend="torch_eager", samples=_samples(1))
    checks = tuple(replace(check, problem="outputs are NaN") for check in bad.checks)
    bad = make_record(backend="torch_eager", precision="fp32", samples=_samples(1), checks=checks)
    ranking = rankings([good, bad], {})[0]
    assert [ranked.excluded for ranked in ranking.rows] == ["", "invalid: outputs are NaN"]
    assert [ranked.speedup for ranked in ranking.rows] == [None, None]
    assert not ranking.rows[1].fastest


def test_workloads_and_shapes_are_ranked_separately(make_record: MakeRecord) -> None:
    records = [make_record(), make_record(machine="gpu-b"), make_record(weights="trained")]
    ranked = rankings(records, {})
    assert len({(ranking.workload, ranking.batch, ranking.sequence) for ranking in ranked}) == len(ranked)
    assert sum(len(ranking.rows) for ranking in ranked) == len(latency_rows(records, {}))
