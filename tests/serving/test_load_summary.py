"""The summary of the configurations of a workload: ratios, winners, packed against padded batches, and notes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_rows import rows
from serving_records import MakeRecord, point, served

from suites.records.record import Record, write_record
from suites.records.results_folder import MachineFolder
from suites.serving.load_summary import summaries
from suites.serving.strategy_text import strategy
from suites.serving.tables import serving_tables
from suites.tables.terminal import Style, end_text

MS = 1e6


def highest(load: float | None, bound_ms: float = 5.0) -> dict[str, Any]:
    return {"bound_ms": bound_ms, "percentile": 99.0, "load": load, "above": 9.0, "tried": 3,
            "reason": "" if load else "fewer are at 5 requests/s"}  # fmt: skip


def configured(
    make_record: MakeRecord, backend: str, loads: tuple[float | None, float | None], most: int = 8, **changes: Any
) -> Record:
    """Return a record with highest loads within 5 and 10 ms. Batches of `most` take 2 ms."""
    options = {"most_requests": most, "wait_ms": 0.0, "arrivals": "poisson", **changes.pop("options", {})}
    times = dict.fromkeys(("mean", "p50", "p90", "p99", "p999", "max"), 2 * MS)
    saturated = point(purpose="saturated", offered=0.0, clients=16, achieved=2.0 * (loads[1] or 100.0))
    points = [point(purpose="search", offered=load, batches={"4": 250}) for load in loads if load]
    if not points:
        slow = dict.fromkeys(("mean", "p50", "p90", "p99", "p999", "max"), 12 * MS)
        points = [point(offered=5.0, latency=slow)]
    return served(
        make_record,
        saturated,
        *(changes.pop("points", points)),
        options=options,
        highest=[highest(loads[0]), highest(loads[1], 10.0)],
        service={str(most): times},
        backend=backend,
        **changes,
    )


@pytest.fixture
def records(make_record: MakeRecord) -> list[Record]:
    """Single requests, padded batches, packed batches in one and four streams, and a server that is too slow."""
    return [
        configured(make_record, "torch_packed", (100.0, 110.0), 1),
        configured(make_record, "torch_packed", (1000.0, 1500.0)),
        configured(make_record, "torch_packed", (960.0, 2000.0), options={"workers": 4, "graph": True}),
        configured(make_record, "torch_eager", (400.0, 500.0)),
        configured(make_record, "ort", (None, None), 1),
    ]


def test_the_highest_load_is_first(records: list[Record]) -> None:
    (summary,) = summaries(records)
    assert summary.bounds == [(5.0, 99.0), (10.0, 99.0)]
    assert [row.load((5.0, 99.0)) for row in summary.configurations] == [1000, 960, 400, 100, 0]
    assert [row.load((5.0, 99.0)) for row in summary.best((5.0, 99.0))] == [1000, 960]
    assert [row.load((10.0, 99.0)) for row in summary.best((10.0, 99.0))] == [2000]


def test_the_table_begins_with_the_summary(records: list[Record]) -> None:
    text = serving_tables(reversed(records))
    part = text.partition("### Summary of tiny")[2].partition("\n### ")[0]
    assert text.index("### Summary of tiny") < text.index("### tiny, ort")
    listed = rows(part)
    assert [(row["backend"], row["strategy"], row["load at 5 ms"], row["load at 10 ms"]) for row in listed] == [
        ("torch_packed fp32", "8 packed", "**1,000** (10.0x)", "1,500 (13.6x)"),
        ("torch_packed fp32", "8 packed, 4 threads, graph", "**960** (9.6x)", "**2,000** (18.2x)"),
        ("torch_eager fp32", "8 padded", "400", "500"),
        ("torch_packed fp32", "single requests", "100", "110"),
        ("ort fp32", "single requests", "none", "none"),
    ]
    first = listed[0]
    # Batches of eight requests in 2 ms are 4,000 requests/s.
    assert (first["full batches"], first["of full batches at 5 ms"], first["of saturated at 5 ms"]) == (
        "4,000", "25%", "33%",
    )  # fmt: skip
    assert (first["p99 ms at 5 ms"], first["batch at 5 ms"]) == ("2.00", "4.00")
    assert listed[1]["full batches"] == ""
    assert [row["notes"] for row in listed] == [
        "",
        "",
        "",
        "",
        "no load within 5 ms or 10 ms, its smallest p99 is 12.0 ms",
    ]
    joined = " ".join(part.split())
    assert (
        "**within 5 ms**: torch_packed fp32 (8 packed) carries the most: 1,000 requests/s, 10.0 times the 100 of "
        "single requests. Loads that differ by less than 5%: torch_packed fp32 (8 packed, 4 threads, graph) with 960."
    ) in joined
    assert (
        "**packed against padded batches, fp32 within 10 ms**: torch_packed fp32 (8 packed, 4 threads, graph) carries "
        "2,000 requests/s, 4.00 times the 500 of torch_eager fp32 (8 padded)."
    ) in joined


def test_a_bound_that_no_configuration_reaches(make_record: MakeRecord) -> None:
    text = serving_tables([configured(make_record, name, (None, 100.0)) for name in ("ort", "torch_eager")])
    assert "- **within 5 ms**: no configuration carries a load." in text


def test_disturbed_rows_have_a_note(make_record: MakeRecord) -> None:
    disturbed = configured(make_record, "ort", (100.0, 100.0), points=[point(offered=100.0, cpu_others=0.62)])
    text = serving_tables([disturbed, configured(make_record, "torch_eager", (50.0, 50.0))])
    notes = [row["notes"] for row in rows(text.partition("### Summary")[2].partition("\n### ")[0])]
    assert notes == ["other processes took up to 62% of the CPU time during 1 of 2 loads", ""]


def test_only_records_of_the_same_requests_are_compared(make_record: MakeRecord) -> None:
    one = configured(make_record, "ort", (100.0, 100.0))
    others = (
        configured(make_record, "torch_eager", (50.0, 50.0), model="other"),
        configured(make_record, "torch_eager", (50.0, 50.0), options={"input": "text"}),
        configured(make_record, "torch_eager", (50.0, 50.0), options={"arrivals": "bursts", "burst": 4}),
        configured(make_record, "torch_eager", (50.0, 50.0), lengths={"distribution": "uniform", "tokens": "auto"}),
        replace(configured(make_record, "torch_eager", (50.0, 50.0)), outcome="failed", result=None),
    )
    for other in others:
        assert summaries([one, other]) == []
        assert "Summary of" not in serving_tables([one, other])


def test_equal_strategies_have_their_options(make_record: MakeRecord) -> None:
    built = configured(make_record, "ort", (100.0, 100.0), options={"padded_to": "built"})
    longest = configured(make_record, "ort", (50.0, 50.0), options={"padded_to": "longest"})
    (summary,) = summaries([built, longest])
    assert len({row.options for row in summary.configurations}) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"most_requests": 1, "workers": 2, "wait_ms": 2.0}, "single requests, 2 threads"),
        ({"most_requests": 4, "most_tokens": 256, "wait_ms": 2.0}, "4 padded, 256 tokens, wait 2 ms"),
        ({"most_requests": 4, "wait_ms": 0.0, "workers": 2, "pool": "processes", "group_by_length": True},
         "4 padded, grouped, 2 processes"),
    ],
)  # fmt: skip
def test_a_strategy_in_words(options: dict[str, Any], words: str, make_record: MakeRecord) -> None:
    assert strategy(served(make_record, point(), options=options)) == words


def test_a_sweep_ends_with_the_summary(records: list[Record], tmp_path: Path) -> None:
    for record in records:
        write_record(tmp_path, record)
    folder = MachineFolder(tmp_path, "gpu-a")
    text = end_text("serving", records[1:3], folder, Style("x/y"))
    summary = text.partition("serving, all configurations: tiny")[2]
    assert all(len(line) <= 80 for line in text.splitlines())
    lines = [line.split() for line in summary.splitlines() if line.startswith(("*  ", "   torch", "   ort"))]
    assert [(line[0], *line[-3:]) for line in lines] == [
        ("*", "3,000", "1,000", "1,500"),
        ("*", "4,000", "960", "2,000"),
        ("torch_eager", "1,000", "400", "500"),
        ("torch_packed", "220", "100", "110"),
        ("ort", "200", "none", "none"),
    ]
    assert "carries the most: 1,000 requests/s, 10.0 times the 100 of single requests." in " ".join(summary.split())


def test_a_run_of_one_cell_has_no_summary(records: list[Record], tmp_path: Path) -> None:
    for record in records:
        write_record(tmp_path, record)
    text = end_text("serving", records[:1], MachineFolder(tmp_path, "gpu-a"), Style("x/y"))
    assert "all configurations" not in text
