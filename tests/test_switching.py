"""The switching suite on programmed costs, which it must find again, and on sessions that go wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli

from backends import null
from backends.base import Array, Feeds, Shape, Unsupported
from backends.null import Costs as Programmed
from backends.null import NullSession
from suites import clock, placeholder, switching
from suites.advise import advise, chosen, confidence, main, report
from suites.checks import Refused
from suites.clock import Effort
from suites.record import Measurement, Record, read_records, write_record
from suites.switching_model import Costs, break_even, kinds, strategy
from suites.tables.switching import switching_tables
from suites.traffic import drawn, from_file, runs, smallest, walk

SHAPES = (Shape(1, 16), Shape(2, 16), Shape(3, 16))
SIZES = [(shape.batch, shape.sequence) for shape in SHAPES]
EFFORT = Effort(0.1, 0.1, 2, 10, 0.1)
MakeRecord = Callable[..., Record]
Measured = Callable[..., Record]


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that programmed costs move, each with noise: a tenth up or down, one in fifty three times as long. The
    machine that runs the test has no part in it."""
    now, generator = [0], np.random.default_rng(0)

    def spend(milliseconds: float) -> None:
        noise = 3.0 if generator.random() < 0.02 else generator.normal(1, 0.1)
        now[0] += round(milliseconds * 1e6 * noise) + 2000

    monkeypatch.setattr(null, "_spend", spend)
    monkeypatch.setattr(clock, "now_ns", lambda: now[0])


@pytest.fixture
def measured(tmp_path: Path, make_record: MakeRecord) -> Measured:
    """The record of a null session with programmed costs, measured as a worker would."""

    def measure(
        programmed: Programmed, session: type[NullSession] = NullSession, repeats: int = 40, requests: int = 1000,
        switches: tuple[float, ...] = (), **options: Any,
    ) -> Record:  # fmt: skip
        arrays = np.load(placeholder.prepare(tmp_path, SHAPES)["inputs"]["path"])
        traffic = {f"switch={switch:g}": runs(requests, switch, len(SHAPES), 0) for switch in switches}
        found = switching.measure(
            session("ok", programmed), SHAPES, arrays, EFFORT, programmed.gpu_ms > 0, lambda text: None,
            traffic, repeats, lambda: NullSession("ok", Programmed()),
        )  # fmt: skip
        record = make_record(suite="switching", backend="null", shapes=tuple(SIZES), options=options, checks=())
        return replace(
            record,
            outcome="failed" if found["failures"] else "ok",
            reason="; ".join(found["failures"].values()),
            measurements=tuple(Measurement.from_json(m) for m in found["measurements"]),
            facts={"opening_ns": {"open": 1_000_000}, **found["facts"]},
            artifacts={"built": {"seconds": 1.0}},
            scores=found["switching"],
        )

    return measure


WIDE = Programmed(step_ms=20)
FIXED = Programmed(step_ms=10, shape_ms=30, first_ms=20)


def test_programmed_costs_are_found_within_five_percent(measured: Measured) -> None:
    wide, fixed = (Costs.of(measured(costs), False) for costs in (WIDE, FIXED))
    for (before, after), cost in fixed.medians[1].items():
        assert cost / 1e6 == pytest.approx(0 if before == after else 50, rel=0.05, abs=0.5)
        assert np.median(fixed.parts[before, after]["shape"]) / 1e6 == pytest.approx(
            0 if before == after else 30, rel=0.05, abs=0.5
        )
    assert all(cost / 1e6 == pytest.approx(10, rel=0.05) for cost in fixed.medians[0].values())
    assert all(abs(cost) / 1e6 < 0.05 * 20 for cost in wide.medians[1].values())
    # 20 ms against 10 ms and 50 ms more for the share that switches: they meet at a fifth.
    assert break_even(wide, fixed) == pytest.approx(0.2, rel=0.05)
    assert break_even(fixed, wide) == pytest.approx(0.2, rel=0.05)
    assert break_even(fixed, fixed) is None
    trace = [SIZES[index] for index in runs(400, 0.1, 3, 0)[0]]
    assert wide.of_trace(trace) > fixed.of_trace(trace)
    busy = [SIZES[index] for index in runs(400, 0.5, 3, 0)[0]]
    assert wide.of_trace(busy) < fixed.of_trace(busy)


def test_replays_agree_with_what_single_changes_add_up_to(measured: Measured) -> None:
    switches = (0.0, 0.01, 0.5, 1.0)
    record = measured(FIXED, switches=switches)
    costs = Costs.of(record, False)
    for switch in switches:
        (replayed,) = [m for m in record.measurements if m.phase == f"replay switch={switch:g}"]
        assert np.mean(replayed.samples) == pytest.approx(costs.at(switch), rel=0.05)


def test_padding_up_is_counted_by_what_requests_ask_for(measured: Measured) -> None:
    record = measured(FIXED)
    asked = ((1, 8), (1, 16), (2, 16), (3, 16))
    costs = Costs.of(replace(record, cell=replace(record.cell, shapes=asked)), False)
    assert costs.served == [(1, 16), *SIZES]
    # Of the twelve changes of shape two are none: both shapes run as 1x16.
    assert costs.at(1) / 1e6 == pytest.approx(10 + 50 * 10 / 12, rel=0.05)


def test_the_first_time_at_a_shape_is_apart(measured: Measured) -> None:
    record = measured(Programmed(step_ms=2, cold_ms=40))
    cold = [t for t in record.scores["transitions"] if t["cold"]]
    assert [t["to"] for t in cold] == [list(size) for size in SIZES]
    for transition in cold:
        (first,), (again,) = transition["samples"]["first"], transition["samples"]["again"]
        assert (first - again) / 1e6 == pytest.approx(40, rel=0.3)  # once in a process: one sample
    assert all(abs(cost) / 1e6 < 0.5 for cost in Costs.of(record, False).medians[1].values())


def test_a_kept_graph_costs_no_change_and_its_capture_is_measured(measured: Measured) -> None:
    record = measured(Programmed(step_ms=10, gpu_ms=4, shape_ms=15, capture_ms=25))
    graph = Costs.of(record, True)
    assert all(abs(cost) / 1e6 < 0.5 for cost in graph.medians[1].values())
    assert all(time / 1e6 == pytest.approx(4, rel=0.1) for time in graph.medians[0].values())
    assert [c["shape"] for c in record.scores["captures"]] == [list(size) for size in SIZES]
    for capture in record.scores["captures"]:
        assert np.median(capture["capture"]) / 1e6 == pytest.approx(25, rel=0.05)
    assert {(p["cuda_graph"], p["transitions"], p["unequal"]) for p in record.scores["parity"]} == {
        (False, 9, 0), (True, 9, 0),
    }  # fmt: skip


class Stale(NullSession):
    """Gives, after shape 2x16, what it gave there, cut to the new shape: a context that mixes up its buffers."""

    _before: tuple[int, ...] = ()

    def set_shape(self, feeds: Feeds) -> None:
        self._before = self._ids.shape
        super().set_shape(feeds)

    def fetch(self) -> Array:
        return self._output * (0.5 if self._before == (2, 16) and self._ids.shape == (3, 16) else 1)


class Forgetful(NullSession):
    """Captures graphs and keeps none."""

    def capture(self) -> None:
        if self.remembers:
            raise Unsupported("keeps none")
        super().capture()


def test_a_session_that_keeps_no_graphs_is_measured_without(measured: Measured) -> None:
    record = measured(Programmed(step_ms=10, gpu_ms=4, capture_ms=25), session=Forgetful, repeats=2)
    assert record.outcome == "ok"
    assert len(record.scores["captures"]) == len(SHAPES)
    assert [one["cuda_graph"] for one in record.scores["parity"]] == [False]
    assert not any(transition["cuda_graph"] for transition in record.scores["transitions"])
    assert "no CUDA graphs: keeps none" in switching_tables([record])


def test_wrong_outputs_after_a_change_are_found(measured: Measured) -> None:
    record = measured(Programmed(), session=Stale, repeats=1)
    assert record.outcome == "failed"
    assert "after 2x16 to 3x16 outputs are not those of a fresh context" in record.reason
    assert record.scores["parity"][0]["unequal"] == 1


@pytest.mark.parametrize("switch", [0.001, 0.1, 0.9, 1])
def test_runs_switch_as_often_as_asked_and_have_all_shapes_as_often(switch: float) -> None:
    (trace,) = runs(5000, switch, 4, seed=1)
    changes = [pair for pair in pairwise(trace) if pair[0] != pair[1]]
    assert len(changes) == round(switch * 4999)
    assert all(count == pytest.approx(1250, abs=1) for count in Counter(trace).values())
    assert runs(5000, switch, 4, seed=1) == [trace]
    if switch == 1:
        assert min(Counter(changes).values()) > 300
        assert len(Counter(changes)) == 12


def test_runs_without_changes_are_a_stretch_for_each_shape() -> None:
    assert runs(6, 0, 3, seed=0) == [[0, 0], [1, 1], [2, 2]]
    assert runs(3, 0.5, 1, seed=0) == [[0, 0, 0]]
    assert runs(3, 0, 2, seed=0) == [[0, 0], [1]]


def test_runs_are_long_enough_for_every_shape() -> None:
    (trace,) = runs(100, 0.01, 4, seed=0)
    assert len(trace) == 301
    assert set(trace) == {0, 1, 2, 3}


def test_a_walk_takes_every_pair_as_often() -> None:
    path = walk(5, 3, seed=0)
    assert Counter(pairwise(path)) == Counter({(a, b): 3 for a in range(5) for b in range(5)})
    assert walk(5, 3, seed=1) != path


def test_requests_of_drawn_lengths_take_the_shape_that_holds_their_longest() -> None:
    shapes = [(1, 16), (1, 64), (8, 16), (8, 64)]
    trace = drawn(400, {"distribution": "histogram", "values": [10, 40], "counts": [9, 1]}, shapes, 0)
    share = Counter(trace)
    assert share[0] / (share[0] + share[1]) == pytest.approx(0.9, abs=0.06)
    assert share[2] / (share[2] + share[3]) == pytest.approx(0.9**8, abs=0.08)


def test_a_file_of_requests_and_its_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text("1 16\n\n2, 9\n")
    assert from_file(str(path), SIZES) == [0, 1]
    for text, says in (("1 16\n\n2\n", "line 3: '2' is not a batch"), ("1 16\n9 16\n", "line 2: no shape holds 9x16")):
        path.write_text(text)
        with pytest.raises(Refused, match=says):
            from_file(str(path), SIZES)
    assert smallest((2, 10), [(8, 16), (2, 64), (4, 16)]) == 2


def test_profiles_tell_changes_apart(make_record: MakeRecord) -> None:
    ranges = [[1, 1, 2, 16], [3, 1, 8, 16]]
    options = {"profiles": "ranges", "ranges": ranges, "min": [1, 16], "opt": [1, 16], "max": [1, 16]}
    record = make_record(backend="trt", options=options, shapes=tuple(SIZES))
    found = kinds(record, [((1, 16), (1, 16)), ((1, 16), (2, 16)), ((2, 16), (3, 16))])
    assert list(found.values()) == ["same shape", "other shape", "other profile"]


def test_a_strategy_has_a_name(make_record: MakeRecord) -> None:
    ends = {"min": [1, 16], "opt": [1, 16], "max": [1, 16]}
    options = {"profiles": "per_shape", "contexts": "per_profile", "pad_to": [[8, 128]], **ends}
    name = strategy(make_record(backend="trt", precision="fp16", options=options), True)
    assert name == "trt, fp16, per_shape, a context a profile, padded up to 1 shapes, CUDA graphs"
    options = {**ends, "profiles": "ranges", "ranges": [[1, 1, 2, 16], [3, 1, 8, 16]]}
    assert strategy(make_record(backend="trt", options=options), False) == "trt, fp32, ranges 1x1..2x16 3x1..8x16"


def test_the_table_names_the_cheapest_by_share_of_changes(measured: Measured) -> None:
    text = switching_tables([measured(WIDE, wide="yes"), replace(measured(FIXED), reason="")])
    assert "| from \\ to | 1x16    | 2x16    | 3x16    |" in text
    assert "#### Every pair: null, fp32, us" in text
    lines = [line for line in text.splitlines() if line.startswith("- 0.")]
    assert len(lines) == 2
    assert lines[0].startswith("- 0.000 to 0.")
    assert float(lines[0].split()[3].rstrip(":")) == pytest.approx(0.2, rel=0.06)


def test_advice_is_the_cheapest_that_fits_with_its_margin(measured: Measured) -> None:
    wide, fixed = measured(WIDE, backend_is="wide"), measured(FIXED)
    heavy = replace(fixed, measurements=tuple(
        Measurement("replay x", 0, 0, False, (1,), ((0, 1, 1),), True, telemetry={"memory_bytes": 5e9}) for _ in (0,)
    ))  # fmt: skip
    costs = chosen([wide, heavy], {"model": "tiny"})
    calm = [SIZES[index] for index in runs(300, 0.05, 3, 0)[0]]
    best, other = advise(costs, calm)
    assert best.costs.record is heavy
    assert confidence(best, [other], calm) == 1
    assert "cheaper than" in report([best, other], calm)
    assert "cheapest in 100%" in report([best, other], calm)
    only, dropped = advise(costs, calm, memory=1e9)
    assert only.costs.record is wide
    assert dropped.against == "takes 5,000 MB"
    assert "the only one" in report([only, dropped], calm)
    assert "No strategy" in report(advise(costs, [(64, 512)]), [(64, 512)])
    with pytest.raises(Refused, match="run it first"):
        chosen([wide], {"model": "other"})


def test_a_strategy_with_wrong_outputs_is_no_choice(measured: Measured) -> None:
    quick, slow = measured(FIXED), measured(WIDE, other="yes")
    drifting = tuple({"batch": b, "sequence": s, "problem": "", "cosine": 0.8 if b == 3 else 0.9999} for b, s in SIZES)
    for wrong in (replace(quick, outcome="failed", reason="parity"), replace(quick, checks=drifting)):
        best, dropped = advise(chosen([wrong, slow], {}), SIZES[:1] * 3)
        assert best.costs.record is slow
        assert dropped.against == "its outputs are wrong"
        assert "- 0.000 to 1.000" in switching_tables([wrong, slow])


def test_advice_from_the_command_line(measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(tmp_path / "results", measured(FIXED, switches=(0.0, 1.0)))
    trace = tmp_path / "trace.txt"
    trace.write_text("1 16\n2 16\n2 16\n")
    assert main([str(trace), f"results={tmp_path / 'results'}"]) == 0
    assert "3 requests, 50.0% of them of another shape" in capsys.readouterr().out
    assert (tmp_path / "results" / "plots" / "switching.svg").read_text().startswith("<?xml")
    assert main([str(trace), f"results={tmp_path / 'results'}", "colour=red"]) == 2
    assert "colour= chooses nothing" in capsys.readouterr().err
    trace.write_text("1 16\nmany\n")
    assert main([str(trace), f"results={tmp_path / 'results'}"]) == 2
    assert "line 2: 'many' is not a batch" in capsys.readouterr().err


def test_the_suite_runs_through_the_pipeline(cli: Cli, tmp_path: Path) -> None:
    done = cli("suite=switching", "backend=null", "null.gpu_ms=1", "null.shape_ms=2", "batch=[1,2]", "sequence=[16,32]",
               "switching.requests=10", "switching.repeats=2", "switching.switch=[0.5]",
               "switching.pad_to=[[2,16],[2,32]]")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "switching")
    assert record.cell.shapes == ((1, 16), (2, 16), (1, 32), (2, 32))
    assert {tuple(t["to"]) for t in record.scores["transitions"]} == {(2, 16), (2, 32)}
    assert [(m.phase, len(m.samples)) for m in record.measurements] == [("replay switch=0.5", 10)] * 2
    assert "padded up to 2 shapes" in done.stdout
    assert (tmp_path / "results" / "tables" / "switching.md").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("switching.pad_to=[[1,16]]",), "switching.pad_to: no shape holds 1x32"),
        (("switching.pad_to=[[1]]",), "which is not [batch,sequence]"),
        (("switching.switch=[2]",), "switching.switch=2.0 is no probability"),
        (("switching.trace=Makefile",), "Makefile, line 1"),
        (("lengths=texts",), "draws lengths without a tokenizer"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments: tuple[str, ...], says: str, cli: Cli) -> None:
    done = cli("suite=switching", "backend=null", "sequence=[32]", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
