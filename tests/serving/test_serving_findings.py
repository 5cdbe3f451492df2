"""Figures of the loads of BERT-base on the H200 in docs/findings.md and the guides, against the records."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from docs.generate.loads import H200, bert_records, bert_summary
from docs.generate.results import REFERENCE
from suites.deploying.batching_rules import rules_for
from suites.exporting.find_record import find_record
from suites.records.results_folder import MachineFolder
from suites.serving.load_summary import Configuration, summaries
from suites.serving.other_processes import disturbed_loads
from suites.serving.result import SATURATED
from suites.tables.markdown import digits

FIVE, TEN = (5.0, 99.0), (10.0, 99.0)


def text_of(page: str) -> str:
    return " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())


FINDINGS, GUIDE = text_of("findings.md"), text_of("guides/serving.md")
ROWS = bert_summary().configurations


def loads(name: str, bound: tuple[float, float] = FIVE) -> dict[int, Configuration]:
    """Return the rows of batches of a backend and precision by their number of streams."""
    return {int(row.record.cell.options["workers"]): row for row in ROWS if row.name == name and not row.single}


def ratios(packed: bool) -> list[float]:
    """Return the ratios of batches to single requests within 5 ms."""
    summary = bert_summary()
    rows = [row for row in ROWS if not row.single and row.packed == packed and row.load(FIVE)]
    return [row.load(FIVE) / single for row in rows if (single := summary.single_requests(row, FIVE))]


def test_the_winner() -> None:
    summary = bert_summary()
    for bound in (FIVE, TEN):
        (best,) = summary.best(bound)
        assert (best.name, best.strategy) == ("trt_plugin int8", "32 packed, 4 threads, graph")
    single = summary.single_requests(best, FIVE)
    assert single
    assert f"in INT8 carry {digits(best.load(FIVE))} requests/s within 5 ms, " in FINDINGS
    assert f"{best.load(FIVE) / single:.1f} times the {digits(single)} of one request at a time" in FINDINGS
    assert f"and {digits(best.load(TEN))} requests/s within 10 ms" in FINDINGS
    half = loads("trt_plugin fp16")
    assert half[2].load(FIVE) == max(row.load(FIVE) for row in half.values())
    assert half[4].load(TEN) == max(row.load(TEN) for row in half.values())
    assert f"In FP16 they carry {digits(half[2].load(FIVE))} requests/s in two streams within 5 ms" in FINDINGS
    assert f"and {digits(half[4].load(TEN))} in four streams within 10 ms" in FINDINGS
    assert not any(disturbed_loads(row.result) for row in (best, *half.values()))


def test_batches_against_single_requests() -> None:
    packed, padded = ratios(True), ratios(False)
    assert min(packed) >= 5
    assert f"carry {min(packed):.1f} to {max(packed):.1f} times as much as one request at a time" in FINDINGS
    assert f"and padded batches {min(padded):.1f} to {max(padded):.1f} times" in FINDINGS


@pytest.mark.parametrize(
    ("precision", "backend", "text"),
    [
        (
            "fp16",
            "torch_compile",
            "FP16 carries {ratio} times the {padded} requests/s of the best padded one, torch.comp",
        ),
        ("int8", "trt", "In INT8 it carries {ratio} times the {padded} requests/s of TensorRT's parser"),
    ],
)
def test_packed_against_padded_batches(precision: str, backend: str, text: str) -> None:
    packed, padded = (bert_summary().best_batches(FIVE, precision, packs) for packs in (True, False))
    assert packed
    assert padded
    assert padded.record.cell.backend == backend
    ratio = f"{packed.load(FIVE) / padded.load(FIVE):.2f}"
    assert text.format(ratio=ratio, padded=digits(padded.load(FIVE))) in FINDINGS


def test_the_parser_is_slower_in_int8() -> None:
    half, small = loads("trt fp16"), loads("trt int8")
    assert all(half[n].load(FIVE) > small[n].load(FIVE) for n in half)


def test_shares_of_the_highest_throughput() -> None:
    shares = {
        backend: [
            row.load(FIVE) / (row.saturated or 0) for row in ROWS if row.packed and row.record.cell.backend == backend
        ]
        for backend in ("trt_plugin", "torch_packed")
    }
    four = loads("trt_plugin fp16")[4]
    low = four.load(FIVE) / (four.saturated or 0)
    assert sorted(shares["trt_plugin"])[0] == low
    assert round(sorted(shares["trt_plugin"])[1], 6) >= 0.8
    assert f"Four streams in FP16 reach {low:.0%}" in FINDINGS
    torch = shares["torch_packed"]
    assert f"Packed PyTorch reaches {min(torch):.0%} to {max(torch):.0%}" in FINDINGS
    alone = [loads(name)[1] for name in ("trt_plugin fp16", "trt_plugin int8", "torch_packed fp16")]
    of_full = [f"{row.load(FIVE) / (row.full_batches or 0):.0%}" for row in alone]
    assert f"A single stream of plugins reaches {of_full[0]} in FP16 and {of_full[1]} in INT8" in FINDINGS
    within_ten = f"{alone[2].load(TEN) / (alone[2].full_batches or 0):.0%}"
    assert f"Packed PyTorch reaches {of_full[2]}, and {within_ten} within 10 ms" in FINDINGS


def test_several_streams() -> None:
    ort, small, half = loads("ort fp16"), loads("trt_plugin int8"), loads("trt_plugin fp16")
    pairs = [f"{digits(rows[1].load(FIVE))}{{}}{digits(rows[4].load(FIVE))}" for rows in (ort, small, half)]
    assert f"carries {pairs[0].format(' requests/s in one stream and ')} in four. " in FINDINGS
    assert f"Plugins in INT8 carry {pairs[1].format(' and ')}, and in FP16 {pairs[2].format(' and ')}." in FINDINGS


def test_stalls_decide_about_some_loads() -> None:
    row = loads("torch_packed fp16")[1]
    points = [point for point in row.result.points if point.offered]
    slow = [point.offered for point in points if point.latency.p99 > 10e6 and not point.rejected]
    missed = min(slow)
    assert slow.count(missed) == 2
    assert missed < row.load(TEN)
    written = f"missed 10 ms twice at {digits(missed)} requests/s and met it at {digits(row.load(TEN))}"
    assert written in FINDINGS


def test_some_packed_batches_had_no_graph() -> None:
    shares = {True: [], False: []}
    for row in ROWS:
        if row.packed and not row.single:
            full = row.result.points[0]
            assert full.purpose == SATURATED
            shares[row.name == "trt_plugin fp16"].append(full.replayed / sum(full.batches.values()))
    assert set(shares[True]) == {1.0}
    assert f"{min(shares[False]):.1%} to {max(shares[False]):.1%} of the batches had one" in FINDINGS


def test_minilm() -> None:
    records = [record for record in MachineFolder(REFERENCE, H200).records("serving") if record.cell.model == "minilm"]
    (summary,) = summaries(records)
    best = {}
    for row in summary.configurations:
        best.setdefault(row.name, row)
    small, half, torch = (best[name] for name in ("trt_plugin int8", "trt_plugin fp16", "torch_packed fp16"))
    assert [row.record.cell.options["workers"] for row in (small, half, torch)] == [1, 2, 2]
    assert (
        f"plugins in INT8 carry {digits(small.load(FIVE))} requests/s in one stream, plugins in FP16 "
        f"{digits(half.load(FIVE))} in two streams, and packed PyTorch {digits(torch.load(FIVE))} in two."
    ) in FINDINGS


def test_int8_of_onnxruntime_reaches_no_bound() -> None:
    assert [row.load(bound) for row in loads("ort int8").values() for bound in (FIVE, TEN)] == [0] * 6
    assert "**ONNX Runtime in INT8 reaches neither 5 nor 10 ms**" in FINDINGS
    assert "ONNX Runtime in INT8 does not reach the bound" in GUIDE


def test_the_conditions_of_the_measurement() -> None:
    records = bert_records()
    assert len({record.environment.uuid for record in records}) == 3
    assert {word for record in records for word in record.command if word.startswith("suite.seconds")} == {
        "suite.seconds=1"
    }
    assert not any(row.single for row in ROWS if row.record.cell.backend == "torch_packed")


def test_the_rules_of_the_committed_records() -> None:
    """The example of docs/guides/triton.md."""
    results: Path = ROOT / "results" / "reference"
    rules = rules_for(find_record("minilm-torch_packed-fp16-2497a6b70b73", results), results)
    assert (rules.most_requests, rules.delay_us, rules.instances) == (32, 0, 2)
    assert "gets batches of up to 32, no wait and two instances" in text_of("guides/triton.md")
