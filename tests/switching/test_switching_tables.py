"""Tables, plots and advice from records of suite=switching: strategy names, rankings, and strategies that cannot be
chosen."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from conftest import SWITCHED, Measured, json_of, replaced

from backends.null_.null import Costs as Programmed
from backends.null_.null import NullSession
from suites.advise import advise, confidence, main, report, select_records, trace_in_built_shapes
from suites.records.measurement import Telemetry
from suites.records.parts import Check
from suites.records.record import Record, write_record
from suites.schema.refusals import Refused
from suites.statistics.stats import mean_of_blocks
from suites.statistics.validity import judged
from suites.switching.costs import Costs, Trace, result_of
from suites.switching.pair_tables import pair_rows, pair_table
from suites.switching.plot_files import write_plots
from suites.switching.strategy_names import StrategyNames, change_kinds, strategy_name
from suites.switching.tables import switching_tables
from suites.switching.traffic import trace_of_runs
from suites.tables.markdown import without_legend

SIZES = [(shape.batch, shape.sequence) for shape in SWITCHED]
WIDE = Programmed(step_ms=2, gpu_ms=18)
FIXED = Programmed(step_ms=2, gpu_ms=8, shape_ms=30, first_ms=20)
HOST = Programmed(step_ms=10)
MakeRecord = Callable[..., Record]


def other_model(record: Record, **cell: object) -> Record:
    return replace(record, cell=replace(record.cell, **cell))  # type: ignore[arg-type]


def test_changes_are_distinguished_by_profile(make_record: MakeRecord) -> None:
    ranges = [[1, 1, 2, 16], [3, 1, 8, 16]]
    options = {"profiles": "ranges", "ranges": ranges, "min": [1, 16], "opt": [1, 16], "max": [1, 16]}
    record = make_record(backend="trt", options=options, shapes=tuple(SIZES))
    kind_of_change = change_kinds(record, [((1, 16), (1, 16)), ((1, 16), (2, 16)), ((2, 16), (3, 16))])
    assert list(kind_of_change.values()) == ["same shape", "other shape", "other profile"]


def test_a_strategy_has_a_name(make_record: MakeRecord) -> None:
    ends = {"min": [1, 16], "opt": [1, 16], "max": [1, 16]}
    options = {"profiles": "per_shape", "contexts": "per_profile", "pad_to": [[8, 128]], **ends}
    name = strategy_name(make_record(backend="trt", precision="fp16", options=options), True)
    assert name == "trt, fp16, per_shape, one context per profile, padded up to 8x128, CUDA graphs"
    options = {**ends, "profiles": "ranges", "ranges": [[1, 1, 2, 16], [3, 1, 8, 16]]}
    assert strategy_name(make_record(backend="trt", options=options), False) == "trt, fp32, ranges 1x1..2x16 3x1..8x16"


def test_strategies_that_would_have_equal_names_get_different_names(make_record: MakeRecord) -> None:
    first, second, other = (
        make_record(backend="trt_plugin", options={"products": "matmul", "gelu": "erf"}),
        make_record(backend="trt_plugin", options={"products": "convolution", "gelu": "erf"}),
        make_record(backend="ort", options={}),
    )
    names = StrategyNames([first, second, other])
    assert names.of(first, True) == "trt_plugin, fp32, CUDA graphs (products=matmul)"
    assert names.of(second, False) == "trt_plugin, fp32 (products=convolution)"
    assert names.of(other, False) == "ort, fp32"


def cells(text: str) -> list[list[str]]:
    """Return all rows of all tables."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_the_table_names_the_cheapest_by_share_of_changes(measured: Measured) -> None:
    text = switching_tables([measured(WIDE, wide="yes"), measured(FIXED)])
    assert "\n1. null, fp32\n2. null, fp32 (wide=yes)\n" in text
    assert "- 0.000 to 1.000: null fp32 graphs [1] (null, fp32, CUDA graphs)" in text
    line, *_ = [
        line for line in text.splitlines() if line.startswith("| null fp32 graphs [1] ") and "| graph hit" in line
    ]
    assert abs(float(line.split("|")[4].split("[")[0])) < 500


def test_the_table_shows_the_break_even_point_of_two_strategies(measured: Measured) -> None:
    wide = measured(Programmed(step_ms=20), repeats=80, which="wide")
    fixed = measured(Programmed(step_ms=10, shape_ms=30, first_ms=20), repeats=80, which="fixed")
    text = switching_tables([wide, fixed])
    lines = [line for line in re.sub(r"\n  +", " ", without_legend(text)).splitlines() if line.startswith("- ")]
    (pair,) = [line for line in text.splitlines() if re.match(r"\| null fp32 \[1\] +\| null fp32 \[2\] +\| 0", line)]
    assert float(pair.split("|")[3].split()[0]) == pytest.approx(0.2, rel=0.06)
    # Each strategy has one process. The lead that the spread between processes explains follows the name.
    ways = [
        line.split(": ")[-1].partition("; the spread between processes explains the lead over ")[0] for line in lines
    ]
    assert ways[:2] == [f"null fp32 [{n}] (null, fp32 (which={which}))" for n, which in ((1, "fixed"), (2, "wide"))]
    words = lines[2].split()
    assert float(words[3]) == pytest.approx(0.2, rel=0.06)
    # A fifth of the requests, which take 20 ms.
    assert float(words[7]) == pytest.approx(10, rel=0.06)
    assert float(words[4].strip("[,")) < 0.2 < float(words[5].strip("]"))


def test_only_equal_precisions_and_requests_are_compared(measured: Measured) -> None:
    record = measured(HOST, repeats=2)
    text = switching_tables([record, other_model(record, precision="int8")])
    assert text.count("Cheapest in fp32") == text.count("Cheapest in int8") == 1
    assert text.count("\n### ") == 1
    busier = other_model(record, lengths={**record.cell.lengths, "traffic": "ffff", "choice": "stsb"})
    text = switching_tables([record, busier])
    assert text.count("\n### ") == 2
    assert "stsb lengths" in text


def test_a_strategy_with_wrong_outputs_is_not_chosen(measured: Measured, tmp_path: Path) -> None:
    quick, slow = measured(HOST, repeats=2, switches=(1.0,)), measured(Programmed(step_ms=20), repeats=2,
                                                                      switches=(1.0,), other="yes")  # fmt: skip
    drifting = tuple(
        Check(batch=b, sequence=s, cuda_graph=False, nonfinite=0, cosine=0.8 if b == 3 else 0.9999) for b, s in SIZES
    )
    result = result_of(quick)
    far = replace(result.parity[0], difference=0.5, where=("1x16", "2x16"))
    nan = replace(far, difference=float("nan"))
    others = [replace(quick, result=replace(result, parity=parity)) for parity in ((far,), (nan,), ())]
    for wrong in (replace(quick, checks=drifting), *others):
        best, dropped = advise(select_records([wrong, slow], {}), SIZES[:1] * 3)
        assert best.costs is not None
        assert best.costs.record is slow
        assert dropped.excluded_because.startswith("its outputs are wrong: ")
        text = switching_tables([wrong, slow])
        assert "- 0.000 to 1.000: null fp32 [2] (null, fp32 (other=yes))" in text
        replays = text[text.index("#### Requests: switch=1") :].splitlines()[4:6]
        assert ["**invalid**" in line for line in replays] == [False, True]
        assert replays[0].startswith("| null fp32 [2] ")
        (path,) = write_plots([wrong, slow], tmp_path)
        assert path.read_text().count(">null, no CUDA graphs</text>") == 1


def test_a_strategy_that_fails_its_task_is_not_chosen(measured: Measured) -> None:
    quick, slow = (
        measured(Programmed(step_ms=step), repeats=2, switches=(1.0,), gelu=gelu)
        for step, gelu in ((10, "x"), (20, "y"))
    )
    scores = {"metric": "spearman", "value": 0.7, "difference": -0.1, "nonfinite": 0, "tolerance": 0.01}
    lengths = {**quick.cell.lengths, "task": "stsb"}
    cell = replace(quick.cell, suite="accuracy", lengths=lengths)
    failed = replaced(replace(quick, cell=cell, measurements=()), scores=scores)
    best, dropped = advise([quick, slow], SIZES, scores=judged([failed]))
    assert best.costs is not None
    assert best.costs.record is slow
    assert dropped.excluded_because == "its outputs are wrong: stsb: spearman falls by 0.1000, more than 0.01"
    assert "- 0.000 to 1.000: null fp32 [1] (null, fp32 (gelu=x))" in switching_tables([quick, slow])
    text = switching_tables([quick, slow], [failed])
    assert "- 0.000 to 1.000: null fp32 [2] (null, fp32 (gelu=y))" in text
    assert "**invalid**: stsb: spearman falls by 0.1000" in text


def test_a_failed_strategy_is_listed_with_its_reason(measured: Measured) -> None:
    record = measured(HOST, repeats=2)
    failed = replaced(record, outcome="failed", reason="9 contexts need 123 bytes", scores={}, checks=(), facts={},
                     measurements=(), cell=replace(record.cell, options={"contexts": "per_profile"}))  # fmt: skip
    text = switching_tables([record, failed])
    assert "failed: 9 contexts need 123 bytes" in text
    best, dropped = advise(select_records([record, failed], {}), SIZES)
    assert best.costs is not None
    assert dropped.name == "null, fp32, one context per profile"
    assert dropped.excluded_because == "failed: 9 contexts need 123 bytes"
    assert "failed: 9 contexts need 123 bytes" in report([best, dropped], SIZES)


def weighing(record: Record, size: float) -> Record:
    return replace(
        record, measurements=tuple(replace(m, telemetry=Telemetry(memory_bytes=size)) for m in record.measurements)
    )


def test_advice_is_the_fastest_strategy_that_fits_with_its_margin(measured: Measured) -> None:
    wide = measured(Programmed(step_ms=20), which="wide", switches=(1.0,))
    fixed = measured(Programmed(step_ms=10, shape_ms=50), which="fixed", switches=(1.0,))
    light, heavy = weighing(wide, 1e8), weighing(fixed, 5e9)
    calm = [SIZES[index] for index in trace_of_runs(300, 0.05, 3, 0)[0]]
    best, other = advise([light, heavy], calm)
    assert best.costs is not None
    assert best.costs.record is heavy
    assert confidence(best, [other], calm) == 1
    assert best.nanoseconds / 1e6 == pytest.approx(10 + 0.05 * 50, rel=0.05)
    text = report([best, other], calm)
    assert "cheaper than null, fp32 (which=wide). It is the cheapest in 100% of 500 bootstrap resamples" in text
    margin = float(text.partition("Use null, fp32 (which=fixed). It is ")[2].partition("%")[0])
    assert margin == pytest.approx(100 * (1 - 12.5 / 20), rel=0.05)
    assert "of one process" in text
    only, dropped = advise([light, heavy], calm, memory=1e9)
    assert only.costs is not None
    assert only.costs.record is light
    assert dropped.excluded_because == "needs 5,000 MB of device memory; the budget is 1,000 MB"
    assert "the only strategy" in report([only, dropped], calm)
    assert "No strategy" in report(advise([light], [(64, 512)]), [(64, 512)])
    with pytest.raises(Refused, match="has model=other; available: tiny"):
        select_records([wide], {"model": "other"})
    with pytest.raises(Refused, match="run suite=switching first"):
        select_records([], {})
    machine = wide.environment.machine
    assert select_records([wide], {"machine": machine[1:]}) == [wide]


def test_strategies_of_other_requests_are_not_compared(measured: Measured) -> None:
    record = measured(HOST, repeats=3)
    lengths = {**record.cell.lengths, "tokenizer": "0123"}
    other = replace(record, cell=replace(record.cell, lengths=lengths))
    with pytest.raises(Refused, match="choose one with requests="):
        select_records([record, other], {})
    assert select_records([record, other], {"requests": "0123"}) == [other]


def test_a_record_of_single_changes_is_used_only_for_outputs(measured: Measured) -> None:
    record = measured(HOST, repeats=1)
    text = switching_tables([record])
    assert re.search(r"\| parity +\|.*\n.*\n.*\| 0\.0e\+00 \|", text)
    assert re.search(r"\| not bit-identical \|.*\n.*\n.*\| 0 of 20 +\|", text)
    assert "Cheapest" not in text
    assert pair_table([record]) == ""
    (advice,) = advise([record], SIZES)
    assert advice.excluded_because == "each change of shape was measured only once"


def test_unknown_memory_is_not_within_a_budget(measured: Measured) -> None:
    record = measured(HOST, repeats=2)
    (free,) = advise([record], SIZES)
    assert not free.excluded_because
    assert "| unknown " in report([free], SIZES)
    (bound,) = advise([record], SIZES, memory=1e12)
    assert "its device memory is unknown" in bound.excluded_because


def test_equal_strategies_have_no_confident_order(measured: Measured) -> None:
    records = [measured(HOST, repeats=10, seed=seed, which=str(seed)) for seed in (0, 1)]
    best, other = advise(records, SIZES * 20)
    assert 0.4 < confidence(best, [other], SIZES * 20) < 0.999


def test_confidence_in_a_long_trace_counts_each_pair_once(measured: Measured) -> None:
    record = measured(HOST, repeats=4)
    long = [SIZES[index] for index in trace_of_runs(50_000, 0.5, 3, 0)[0]]
    costs = Costs.of(record, False)
    trace = trace_in_built_shapes(costs, long)
    assert len(trace.changes) == 6
    assert sum(trace.shapes.values()) == trace.requests == 50_000
    assert sum(trace.changes.values()) == round(0.5 * 49_999)
    by_hand = sum(float(costs.means.steady[size]) for size in long)
    by_hand += sum(float(costs.means.change[a, b]) for a, b in pairwise(long) if a != b)
    assert float(costs.means.of_trace(trace)) == pytest.approx(by_hand)
    assert Trace.of([(1, 16)]).changes == {}


def test_the_interval_of_a_mean_is_computed_from_its_blocks() -> None:
    generator = np.random.default_rng(0)
    blocks = [generator.normal(level, 1, 100) for level in generator.normal(10, 3, 10)]
    low, high = mean_of_blocks(np.concatenate(blocks).tolist(), [100] * 10)
    assert low < np.mean(blocks) < high
    # The width follows from the levels of ten blocks, not from a thousand samples.
    assert 2 < high - low < 6


def test_every_pair_is_listed_with_its_parts(measured: Measured) -> None:
    costs = Programmed(step_ms=5, shape_ms=2, other={"shape_ms 1x16 3x16": 9})
    rows = list(csv.DictReader(io.StringIO(pair_table([measured(costs)]))))
    assert {(row["strategy"], row["kind"]) for row in rows} == {("null, fp32", "shape")}
    by_pair = {(row["from"], row["to"]): float(row["set shape µs"]) for row in rows}
    assert set(by_pair) == set(product(["1x16", "2x16", "3x16"], repeat=2))
    assert by_pair["1x16", "1x16"] < 500
    assert by_pair["1x16", "2x16"] == pytest.approx(2000, rel=0.3)
    assert by_pair["1x16", "3x16"] - by_pair["2x16", "3x16"] == pytest.approx(7000, rel=0.3)
    (row,) = [row for row in rows if (row["from"], row["to"]) == ("1x16", "3x16")]
    assert float(row["extra cost µs"]) == pytest.approx(by_pair["1x16", "3x16"], rel=0.3)
    for enqueue in ("enqueue 1st µs", "enqueue 2nd µs", "enqueue 3rd µs"):
        assert float(row[enqueue]) == pytest.approx(5000, rel=0.3)
    assert int(row["visits"]) >= 2


def test_first_requests_are_listed_by_shape(measured: Measured) -> None:
    costs = Programmed(step_ms=5, gpu_ms=1, cold_ms=20, capture_ms=3, other={"capture_ms 3x16": 9})
    text = switching_tables([measured(costs, session=lambda costs: NullSession("ok", costs), starts=9)])
    values: dict[str, list[str]] = {}
    for row in cells(text.split("#### First requests and captures by shape")[1].partition("\n#")[0]):
        # The table is split: each part has some of the shapes.
        values.setdefault(row[1], []).extend(row[2:])
    for what in ("first request of the process", "first request per shape"):
        for middle, low, high in (re.findall(r"[\d.]+", cell) for cell in values[what]):
            assert float(middle) == pytest.approx(20, rel=0.2)
            assert float(low) < float(middle) < float(high)
    assert [float(cell) for cell in values["new context, new shape"]] == pytest.approx([20, 20, 20], rel=0.4)
    assert [float(cell.split(" ")[0]) for cell in values["capture"]] == pytest.approx([3, 3, 9], rel=0.2)


def test_contexts_are_listed_with_memory_each_and_their_total_time(measured: Measured) -> None:
    record = measured(Programmed(step_ms=5), repeats=2)
    sizes, steps = (
        {"context 1": 30_000_000, "context 2": 8_000_000, "buffers": 4_000_000},
        {"import": 200_000_000, "context 1": 40_000_000, "context 2": 20_000_000},
    )
    scores = {**json_of(record)["scores"], "openings": [{"of": "plain steps", "ns": steps, "bytes": {}}]}
    started = {**scores, "starts": [{"opening": {name: 3 * took for name, took in steps.items()}, "met": []}]}
    facts = {"memory": {"opening": sizes, "shapes": 0}}
    text = switching_tables([replaced(record, scores=scores, facts=facts)])
    assert cells(text.split("First opening by step, MB")[1])[:3:2] == [
        ["strategy", "contexts", "buffers"],
        ["null fp32 [1]", "38 (30, 8)", "4"],
    ]
    assert cells(text.split("First opening by step, ms")[1])[:3:2] == [
        ["strategy", "import", "contexts"],
        ["null fp32 [1]", "200", "60"],
    ]
    text = switching_tables([replaced(record, scores=started)])
    assert cells(text.split("First opening by step, ms")[1])[:3:2] == [
        ["strategy", "total", "import", "contexts"],
        ["null fp32 [1]", "520 (260 to 780)", "400", "120"],
    ]


def test_each_pair_of_profiles_has_its_own_row(measured: Measured) -> None:
    ends = {"min": [1, 16], "opt": [1, 16], "max": [1, 16]}
    costs = Programmed(step_ms=5, shape_ms=2, profile_ms=9, profile_of={"3x16": 1})
    record = measured(costs, profiles="ranges", ranges=[[1, 1, 2, 16], [3, 1, 8, 16]], **ends)
    rows = [row for row in pair_rows(Costs.of(record, False)) if row["kind"] == "profile"]
    extra = {(row["from"], row["to"]): float(row["extra cost µs"]) for row in rows}
    assert extra["1x1..2x16", "1x1..2x16"] == pytest.approx(2000, rel=0.2)
    assert extra["1x1..2x16", "3x1..8x16"] == pytest.approx(11000, rel=0.1)


def test_advice_from_the_command_line(measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = measured(FIXED, switches=(0.0, 1.0), session=lambda costs: NullSession("ok", costs))
    path = write_record(tmp_path / "results", record)
    assert json.loads(path.read_text())["scores"]["transitions"]
    trace = tmp_path / "trace.txt"
    trace.write_text("1 16\n2 16\n2 16\n")
    assert main([str(trace), f"results={tmp_path / 'results'}"]) == 0
    assert "3 requests. 50.0% of them have another shape" in capsys.readouterr().out
    plot = tmp_path / "results" / "gpu-a" / "plots" / "switching-tiny-fp32.svg"
    assert plot.read_text().startswith("<?xml")
    assert main([str(trace), f"results={tmp_path / 'results'}", "colour=red"]) == 2
    assert "there is no key colour; choices: results, machine" in capsys.readouterr().err
    trace.write_text("1 16\nmany\n")
    assert main([str(trace), f"results={tmp_path / 'results'}"]) == 2
    assert "line 2: 'many' is not a batch" in capsys.readouterr().err


def test_replays_are_listed_next_to_the_predicted_sums(measured: Measured) -> None:
    far_from_prediction = measured(Programmed(step_ms=20), which="one", switches=(1.0,))
    near = measured(Programmed(step_ms=20.2), which="near", switches=(1.0,))
    assert Costs.of(far_from_prediction, False).model_error < 0.05
    assert list(Costs.of(far_from_prediction, False).replays) == [1.0]
    # Replays take 50% longer than predicted, which is more than the difference of the two strategies.
    slower = [
        replace(
            record,
            measurements=tuple(replace(m, samples=tuple(int(1.5 * x) for x in m.samples)) for m in record.measurements),
        )
        for record in (far_from_prediction, near)
    ]
    assert Costs.of(slower[0], False).model_error == pytest.approx(0.5, abs=0.1)
    assert "(+5" in switching_tables(slower) or "(+4" in switching_tables(slower)
    advised = report(advise(slower, SIZES), SIZES)
    assert "which is more than this margin. Replay this trace with both" in advised
    far = measured(Programmed(step_ms=60), which="far", switches=(1.0,))
    assert "more than this margin" not in report(advise([far_from_prediction, far], SIZES), SIZES)


def test_a_strategys_name_contains_its_rare_options(make_record: MakeRecord) -> None:
    profiles = {"min": [1, 16], "opt": [1, 16], "max": [1, 16], "tactic_sources": []}
    kinds_of = ("per_shape", "dynamic", "buckets")
    usual = [make_record(backend="trt", options={**profiles, "profiles": kind}) for kind in kinds_of]
    rare = make_record(backend="trt", options={**profiles, "profiles": "per_shape", "tactic_sources": ["none"]})
    names = StrategyNames([*usual, rare])
    assert names.of(rare, True) == "trt, fp32, per_shape, CUDA graphs (tactic_sources=none)"
    assert [names.of(record, False) for record in usual] == [strategy_name(record, False) for record in usual]
    renewed = other_model(usual[0], release="tensorrt 10.1")
    assert StrategyNames([*usual, renewed]).of(renewed, False) == "trt, fp32, per_shape (tensorrt 10.1)"
