"""Curves, plots and page data of serving records, and the table of streams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_rows import rows
from serving_records import MakeRecord, point, served

from suites.html_report.page_data import page_data
from suites.records.record import Record, write_record
from suites.records.results_folder import MachineFolder
from suites.report import main
from suites.serving.load_curves import curves_by_workload, first_of_each_backend
from suites.serving.load_plot import write_load_plots
from suites.serving.stream_tables import stream_tables
from suites.serving.tables import serving_tables


def at(rate: float, milliseconds: float, **changes: Any) -> dict[str, Any]:
    latency = dict.fromkeys(("mean", "p50", "p90", "p99", "p999", "max"), milliseconds * 1e6)
    return point(
        offered=rate, achieved=rate, sent=round(rate * 10), answered=round(rate * 10), latency=latency, **changes
    )


def test_a_curve_has_the_loads_that_the_server_keeps_up_with(make_record: MakeRecord) -> None:
    full = point(purpose="saturated", offered=0.0, clients=4)
    too_much = at(400, 90, rejected=900)
    ((curve,),) = curves_by_workload([served(make_record, full, at(200, 4), at(100, 2), too_much, at(5, 1))])
    assert [(p.load, p.p50_ms, p.p99_ms) for p in curve.points] == [(5, 1, None), (100, 2, 2), (200, 4, 4)]
    assert curve.points[0].batch == pytest.approx(4 / 3)
    assert curve.label == "null fp32: batches of up to 2 requests, wait 1 ms"


def test_strategies_are_compared_within_a_workload(make_record: MakeRecord) -> None:
    slow = served(make_record, at(100, 2))
    fast = served(make_record, at(300, 2), options={"workers": 2})
    same_label = served(make_record, at(200, 2), options={"padded_to": "built"})
    other = served(make_record, at(100, 2), model="other")
    failed = replace(slow, outcome="failed", result=None)
    groups = curves_by_workload([slow, fast, same_label, other, failed])
    assert sorted(len(group) for group in groups) == [1, 3]
    (group,) = (group for group in groups if len(group) == 3)
    assert [curve.points[-1].load for curve in group] == [300, 200, 100]
    assert len({curve.label for curve in group}) == 3


def test_the_first_of_each_backend_is_drawn(make_record: MakeRecord) -> None:
    records = [
        served(make_record, at(rate, 2), backend=backend, options={"workers": workers})
        for backend, rates in (("ort", (900, 800, 700)), ("null", (100,)))
        for workers, rate in enumerate(rates, 1)
    ]
    ((*curves,),) = curves_by_workload(records)
    drawn = first_of_each_backend(curves, 3)
    assert [(curve.record.cell.backend, curve.points[0].load) for curve in drawn] == [
        ("ort", 900), ("ort", 800), ("null", 100),
    ]  # fmt: skip


def test_a_report_has_a_plot_of_each_workload(make_record: MakeRecord, tmp_path: Path) -> None:
    uniform = {"distribution": "uniform", "tokens": "auto", "low": 8}
    for record in (served(make_record, at(100, 2)), served(make_record, at(100, 2), lengths=uniform)):
        write_record(tmp_path, record)
    assert main([str(tmp_path)]) == 0
    plots = sorted((tmp_path / "gpu-a" / "plots").iterdir())
    assert [path.name for path in plots] == ["serving-tiny-2.svg", "serving-tiny.svg"]
    text = plots[0].read_text()
    for words in (
        "p99 of latency, ms",
        "mean requests of a batch",
        "load, requests/s",
        "null fp32: batches of up to 2",
    ):
        assert words in text
    assert write_load_plots(MachineFolder(tmp_path, "gpu-a"))[0].read_text() == plots[1].read_text()


def test_the_page_has_the_curves(make_record: MakeRecord, tmp_path: Path) -> None:
    write_record(tmp_path, served(make_record, at(200, 4), at(5, 1)))
    data = page_data([MachineFolder(tmp_path, "gpu-a")])
    assert data["serving"] == [
        {
            "machine": "GPU-A, driver 1.2",
            "name": "tiny, random (seed 0) weights, 1 strategies",
            "strategies": [
                {
                    "record": 0,
                    "label": "null fp32: batches of up to 2 requests, wait 1 ms",
                    "points": [[5, 1, None, 1.33333], [200, 4, 4, 1.33333]],
                }
            ],
        }
    ]


def streams(make_record: MakeRecord, workers: int, most: int, load: float | None, throughput: float) -> Record:
    saturated = point(purpose="saturated", offered=0.0, clients=4, achieved=throughput)
    highest = [{"bound_ms": 5.0, "percentile": 99.0, "load": load, "above": 9.0, "tried": 3, "reason": ""}]
    options = {"workers": workers, "most_requests": most, "queue": workers, "wait_ms": 0.0}
    return served(make_record, saturated, options=options, highest=highest)


def test_streams_are_compared_with_batches(make_record: MakeRecord) -> None:
    settings = ((1, 1, 100, 120), (4, 1, 150, 200), (1, 8, 400, 500), (2, 8, 405, 700))
    records = [streams(make_record, *values) for values in settings]
    text = stream_tables(records)
    listed = rows(text)
    assert [(row["streams"], row["most requests"], row["load at 5 ms"]) for row in listed] == [
        ("1", "1", "100"), ("4", "1", "150"), ("1", "8", "400"), ("2", "8", "405"),
    ]  # fmt: skip
    joined = " ".join(text.split())
    assert (
        "**within 5 ms**: no difference. 2 streams (batches of up to 8 requests, wait 0 ms, 2 threads) carry 405 "
        "requests/s, 1.01 times the 400 of one stream (batches of up to 8 requests, wait 0 ms)."
    ) in joined
    assert "**saturated**: several streams pay. 2 streams" in joined
    assert "one stream is better. 4 streams" in " ".join(stream_tables(records[1:3]).split())


def test_records_of_one_stream_have_no_table_of_streams(make_record: MakeRecord) -> None:
    assert stream_tables([streams(make_record, 1, 1, 100, 120), streams(make_record, 1, 8, 400, 500)]) == ""
    other_precision = streams(make_record, 2, 1, None, 100)
    other_precision = replace(other_precision, cell=replace(other_precision.cell, precision="fp16"))
    assert stream_tables([streams(make_record, 1, 1, 100, 120), other_precision]) == ""


LIMIT = (
    "Other processes limited the search for 5 ms: they took up to {} requests/s. On an idle machine, the server may "
    "carry this load."
)


@pytest.mark.parametrize(
    ("results", "limit"),
    [
        ([(0.2, 0.62)], "62% of the CPU time at 300"),
        ([(0.2, 0.62), (0.95, 0.3), (0.9, 0.4)], "62% of the CPU time in 3 of 3 results of 300"),
        ([(0.95, 0.0), (0.95, 0.3), (0.9, 0.4)], "40% of the CPU time in 2 of 3 results of 300"),
        ([(0.2, 0.62), (0.1, 0.0)], ""),
        ([(0.95, 0.0), (0.9, 0.0)], ""),
        ([(0.95, 0.0)], ""),
    ],
)
def test_the_table_says_that_other_processes_limited_the_search(
    make_record: MakeRecord, results: list[tuple[float, float]], limit: str
) -> None:
    heavy = [at(300, 9, shares=[share], cpu_others=others, cpu_resolution=0.01) for share, others in results]
    highest = [{"bound_ms": 5.0, "percentile": 99.0, "load": 200.0, "above": 300.0, "tried": 2, "reason": ""}]
    record = served(make_record, at(200, 3, shares=[1.0]), *heavy, highest=highest)
    text = " ".join(serving_tables([record]).split())
    assert "300 is too high" in text
    assert (LIMIT.format(limit) in text) if limit else "limited the search" not in text


@pytest.mark.parametrize(
    ("steal", "words"), [(None, ""), (0.2, ""), (0.5, " (50% was stolen: the hypervisor ran other virtual machines)")]
)
def test_the_warning_names_stolen_time_if_it_is_most_of_the_share(
    make_record: MakeRecord, steal: float | None, words: str
) -> None:
    text = serving_tables([served(make_record, at(300, 4, cpu_others=0.62, cpu_steal=steal))])
    assert f"Other processes took up to 62% of the CPU time{words} during 1 of 1 loads." in " ".join(text.split())


def test_a_share_counts_if_it_exceeds_the_limit_by_more_than_its_error(make_record: MakeRecord) -> None:
    unsure, sure = (at(100, 2, cpu_others=0.06, cpu_resolution=error) for error in (0.02, 0.005))
    text = serving_tables([served(make_record, unsure, sure)])
    assert [row["other CPU"] for row in rows(text) if "other CPU" in row] == ["", "6%"]


def test_the_table_warns_of_other_processes(make_record: MakeRecord) -> None:
    quiet, busy, most = at(100, 2, cpu_others=0.04), at(200, 3, cpu_others=0.31), at(300, 4, cpu_others=0.62)
    text = serving_tables([served(make_record, quiet, busy, most)])
    assert [row["other CPU"] for row in rows(text) if "other CPU" in row] == ["", "31%", "62%"]
    assert "Other processes took up to 62% of the CPU time during 2 of 3 loads." in " ".join(text.split())
    without = serving_tables([served(make_record, quiet, at(200, 3))])
    assert "Other processes" not in without
    assert all("other CPU" not in row for row in rows(without))
