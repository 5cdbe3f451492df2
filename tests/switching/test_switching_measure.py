"""The switching suite must recover programmed costs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, permutations, product

import numpy as np
import pytest
from conftest import SWITCHED, Measured, json_of

from backends.base import Feeds
from backends.null_.null import Costs as Programmed
from backends.null_.null import NullSession
from suites.measuring.clock import Effort
from suites.switching.costs import Costs, Trace, break_even, break_even_point
from suites.switching.strategies import Labels
from suites.switching.traffic import trace_of_runs
from suites.switching.transition_tables import changes

SIZES = [(shape.batch, shape.sequence) for shape in SWITCHED]
ONE, TWO, THREE = map(str, SWITCHED)
LABEL = dict(zip(SIZES, (ONE, TWO, THREE), strict=True))
REPEATS = 400
"""Of each pair: with the noise of the simulated clock its mean is then off by a hundredth, and five are allowed."""

# Each shape, each ordered pair and each part has a different cost.
FIXED = Programmed(
    step_ms=3, gpu_ms=5, copy_ms=0.3, shape_ms=6, profile_ms=4, first_ms=3, first_gpu_ms=2, cold_ms=40, capture_ms=25,
    other={
        f"step_ms {TWO}": 4, f"step_ms {THREE}": 6, f"gpu_ms {TWO}": 8, f"gpu_ms {THREE}": 14,
        f"shape_ms {ONE} {TWO}": 12, f"shape_ms {TWO} {ONE}": 3, f"shape_ms {THREE} {ONE}": 20,
        f"first_gpu_ms {THREE}": 4,
    },
    profile_of={TWO: 1},
)  # fmt: skip
MIDDLE = Programmed(step_ms=10, gpu_ms=4, shape_ms=5, first_gpu_ms=1)
WIDE = Programmed(step_ms=2, gpu_ms=16)


def rows_of(table: str) -> list[dict[str, str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def steady_of(costs: Programmed, shape: str, graph: bool = False) -> float:
    """Return the programmed ms of a request that has the shape of the previous request."""
    return costs.copy_ms + (0 if graph else costs.of("step_ms", shape)) + costs.of("gpu_ms", shape)


def change_of(costs: Programmed, before: str, after: str) -> float:
    """Return the additional programmed ms of a change of shape."""
    profile = costs.profile_of.get(before, 0) != costs.profile_of.get(after, 0)
    named = ("shape_ms", "first_ms", "first_gpu_ms")
    return costs.profile_ms * profile + sum(costs.of(name, after, before) for name in named)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_programmed_costs_are_recovered_within_five_percent(measured: Measured, seed: int) -> None:
    record = measured(FIXED, repeats=REPEATS, seed=seed)
    costs = Costs.of(record, False)
    for size, label in LABEL.items():
        assert costs.means.steady[size] / 1e6 == pytest.approx(steady_of(FIXED, label), rel=0.05)
    for before, after in permutations(SIZES, 2):
        visits, labels = costs.visits[before, after], (LABEL[before], LABEL[after])
        assert costs.means.change[before, after] / 1e6 == pytest.approx(change_of(FIXED, *labels), rel=0.05)
        shape = FIXED.of("shape_ms", labels[1], labels[0])
        assert np.mean(visits.parts["set shape"][:, 0]) / 1e6 == pytest.approx(shape, rel=0.05)
        assert ("profile" in visits.parts) == (TWO in labels)
        if TWO in labels:
            assert np.mean(visits.parts["profile"][:, 0]) / 1e6 == pytest.approx(4, rel=0.05)
        assert np.mean(visits.copy[:, 0]) / 1e6 == pytest.approx(0.3, rel=0.05)
        step = FIXED.of("step_ms", labels[1])
        assert np.mean(visits.enqueue, axis=0) / 1e6 == pytest.approx([step + 3, step, step], rel=0.05)
    for size in SIZES:
        assert abs(costs.visits[size, size].extra.mean()) / 1e6 < 0.05 * steady_of(FIXED, LABEL[size])


def test_device_times_contain_no_host_time(measured: Measured) -> None:
    record = measured(FIXED, repeats=4)
    changes_on_device = [change for change in json_of(record)["scores"]["device"] if not change["cuda_graph"]]
    assert {(*change["from"], *change["to"]) for change in changes_on_device} == {
        (*a, *b) for a, b in product(SIZES, SIZES)
    }
    for change in changes_on_device:
        before, after = (LABEL[tuple(change[end])] for end in ("from", "to"))
        gpu = FIXED.of("gpu_ms", after)
        more = FIXED.of("first_gpu_ms", after, before) if before != after else 0
        assert set(change["again"]) == {round(1e6 * gpu)}
        assert set(change["first"]) == {round(1e6 * (gpu + more))}
        assert change["overtaken"] == 0


class Slow(NullSession):
    """A session whose host becomes much slower when it is timed on the device."""

    _occupied = False

    def step(self) -> None:
        self._occupied |= self._null_stream.device - self._null_stream.host > 20
        self._null_stream.spend(1000 if self._occupied else 0)
        super().step()


def test_a_device_that_waited_for_the_host_gives_no_sample(measured: Measured) -> None:
    record = measured(FIXED, session=lambda costs: Slow("ok", costs), repeats=3)
    plain = [change for change in json_of(record)["scores"]["device"] if not change["cuda_graph"]]
    assert {change["overtaken"] for change in plain} == {3}
    assert not any(change["first"] for change in plain)


class Waiting(NullSession):
    """A session that waits for the device before a change of shape."""

    def changing(self, feeds: Feeds) -> Iterator[str]:
        self.wait()
        return super().changing(feeds)


def test_a_change_that_waits_for_the_device_is_still_timed_on_the_device(measured: Measured) -> None:
    record = measured(FIXED, session=lambda costs: Waiting("ok", costs), repeats=3)
    assert {change["overtaken"] for change in json_of(record)["scores"]["device"]} == {0}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_strategies_have_the_programmed_ranks_and_break_even_points(measured: Measured, seed: int) -> None:
    # Step and change in ms: 6 or 12 and 26; 14 and 6; 18 and 0.
    quick = Programmed(step_ms=2, gpu_ms=8, shape_ms=20, first_ms=6)
    all_costs = [Costs.of(measured(costs, repeats=REPEATS, seed=seed), False) for costs in (quick, MIDDLE, WIDE)]
    first, middle, wide = all_costs
    for switch, ranked in ((0.0, [first, middle, wide]), (0.3, [middle, first, wide]), (0.45, [middle, wide, first]),
                           (1.0, [wide, middle, first])):  # fmt: skip
        assert sorted(all_costs, key=lambda costs, at=switch: float(costs.means.at(at))) == ranked
        trace = Trace.of([SIZES[index] for stretch in trace_of_runs(3000, switch, 3, 0) for index in stretch])
        assert sorted(all_costs, key=lambda costs, t=trace: float(costs.means.of_trace(t))) == ranked
    for quicker, other, switch in ((first, middle, 0.2), (first, wide, 8 / 26), (middle, wide, 4 / 6)):
        assert break_even(quicker.means, other.means) == pytest.approx(switch, rel=0.05)
        found_at = break_even_point(other, quicker)
        assert found_at is not None
        # A 95% interval may miss the true value, but not by more than its own width.
        width = found_at.switch_high - found_at.switch_low
        assert found_at.switch_low - width < switch < found_at.switch_high + width
        assert 0 < width < 0.2 * switch
        request_s = 1e-3 * (10 + switch * 26 if quicker is first else 14 + switch * 6)
        assert found_at.per_second == pytest.approx(switch / request_s, rel=0.05)
        assert found_at.per_second_low < found_at.per_second < found_at.per_second_high
        assert found_at.certain == 1
    assert break_even_point(first, first) is None


def test_the_time_of_a_trace_is_the_sum_of_its_shapes_and_changes(measured: Measured) -> None:
    costs = Costs.of(measured(FIXED, repeats=REPEATS), False)
    trace = [SIZES[index] for index in (2,) * 50 + (0, 1) * 25]
    programmed = sum(steady_of(FIXED, LABEL[size]) for size in trace)
    programmed += sum(change_of(FIXED, LABEL[a], LABEL[b]) for a, b in pairwise(trace) if a != b)
    assert costs.means.of_trace(Trace.of(trace)) / 1e6 == pytest.approx(programmed, rel=0.03)
    drawn = costs.resampled(50).of_trace(Trace.of(trace)) / 1e6
    assert drawn.shape == (50,)
    assert 0 < drawn.std() < 0.01 * programmed


def test_replays_agree_with_the_sum_of_single_changes(measured: Measured) -> None:
    switches = (0.0, 0.01, 0.5, 1.0)
    record = measured(FIXED, switches=switches, repeats=REPEATS)
    for graph, switch in product((False, True), switches):
        costs = Costs.of(record, graph)
        (replayed,) = [
            m
            for m in record.measurements
            if (m.phase, m.trace, m.cuda_graph) == ("replay", f"switch={switch:g}", graph)
        ]
        # The copy ends while the host enqueues.
        hidden = 0 if graph else 0.3e6
        assert np.mean(replayed.samples) == pytest.approx(float(costs.means.at(switch)) - hidden, rel=0.03)
        (replay,) = [entry for entry in json_of(record)["scores"]["replays"]
                   if (entry["name"], entry["cuda_graph"]) == (f"switch={switch:g}", graph)]  # fmt: skip
        assert sum(replay["blocks"]) == replay["asked"] == len(replayed.samples)
        assert replay["switches"] == pytest.approx(switch * len(replayed.samples), rel=0.12)
        assert replay["replayed"] == graph * len(replayed.samples)


def test_padded_requests_are_counted_by_their_own_shape(measured: Measured) -> None:
    record = measured(FIXED, held=SWITCHED[1:], switches=(1.0,), repeats=REPEATS)
    costs = Costs.of(record, False)
    assert costs.served == [SIZES[1], SIZES[1], SIZES[2]]
    # Two of the six changes have no cost, because both shapes run as 2x16.
    four = 2 * change_of(FIXED, TWO, THREE) + 2 * change_of(FIXED, THREE, TWO)
    steady = (2 * steady_of(FIXED, TWO) + steady_of(FIXED, THREE)) / 3
    assert costs.means.at(1) / 1e6 == pytest.approx(steady + four / 6, rel=0.05)
    drawn = costs.resampled(50).at(1) / 1e6
    assert drawn.shape == (50,)
    assert drawn.mean() == pytest.approx(steady + four / 6, rel=0.05)
    (replay,) = [entry for entry in json_of(record)["scores"]["replays"] if not entry["cuda_graph"]]
    assert 0.5 * replay["asked"] < replay["switches"] < 0.8 * replay["asked"]


def test_the_first_request_of_a_shape_is_recorded_separately(measured: Measured) -> None:
    record = measured(FIXED, repeats=2)
    for where in ("process", "context"):
        cold_starts = [cold_start for cold_start in json_of(record)["scores"]["cold"] if cold_start["where"] == where]
        assert [cold_start["shape"] for cold_start in cold_starts] == [list(size) for size in SIZES]
        for cold_start in cold_starts:
            ((first, _, third),) = cold_start["samples"]["enqueue"]
            assert (first - third) / 1e6 == pytest.approx(43, rel=0.35)  # a single sample
    assert json_of(record)["facts"]["opening_ns"].keys() == {"import", "open"}
    assert [opening["of"] for opening in json_of(record)["scores"]["openings"]][-3:] == [
        "plain steps",
        "captures",
        "kept graphs",
    ]


def test_a_change_back_is_identified_by_the_previous_shape(measured: Measured) -> None:
    record = measured(FIXED, repeats=30)
    for transition in json_of(record)["scores"]["transitions"]:
        assert len(transition["earlier"]) == len(transition["samples"]["whole"])
    counted = sum(
        size == transition["to"]
        for transition in json_of(record)["scores"]["transitions"]
        for size in transition["earlier"]
    )
    assert counted == pytest.approx(9 * 30 * 2 / 3, rel=1)
    assert Costs.of(record, False).visits[SIZES[0], SIZES[1]].earlier.count(SIZES[1]) > 3


def test_a_kept_graph_costs_no_change_and_its_capture_is_measured(measured: Measured) -> None:
    record = measured(FIXED, repeats=REPEATS)
    graph = Costs.of(record, True)
    assert all(visits.replayed.all() for visits in graph.visits.values())
    assert all(abs(float(cost)) / 1e6 < 0.7 for cost in graph.means.change.values())
    for size, label in LABEL.items():
        assert graph.means.steady[size] / 1e6 == pytest.approx(steady_of(FIXED, label, graph=True), rel=0.05)
    assert [c["shape"] for c in json_of(record)["scores"]["captures"]] == [list(size) for size in SIZES]
    captures = [x for c in json_of(record)["scores"]["captures"] for x in c["capture"]]
    assert np.mean(captures) / 1e6 == pytest.approx(25, rel=0.1)
    assert json_of(record)["facts"]["graphs"] == len(SIZES)
    plain, kept = json_of(record)["scores"]["parity"]
    assert (plain["replayed"], plain["unequal"], kept["unequal"]) == (0, 0, 0)
    # Every pair occurs once with graphs only, and once mixed with plain steps.
    assert len(SIZES) ** 2 < kept["replayed"] < kept["transitions"]


class Various(NullSession):
    """A session with sizes that depend on the request, as with packed tokens: some sizes recur and some do not."""

    def _sizes_of(self, feeds: Feeds) -> tuple[int, ...]:
        return (*super()._sizes_of(feeds), int(feeds["input_ids"][0, 0]) % 6)


def test_graphs_of_random_sizes_are_replayed_only_for_recurring_sizes(measured: Measured) -> None:
    record = measured(FIXED, session=lambda costs: Various("ok", costs), switches=(0.5,), repeats=20)
    (replay,) = [entry for entry in json_of(record)["scores"]["replays"] if entry["cuda_graph"]]
    assert 0.3 < replay["replayed"] / replay["asked"] < 1
    visits = Costs.of(record, True).visits
    hit = np.concatenate([v.whole[:, 0][v.replayed[:, 0] == 1] for v in visits.values()])
    missed = np.concatenate([v.whole[:, 0][v.replayed[:, 0] == 0] for v in visits.values()])
    assert hit.mean() + 8e6 < missed.mean()
    # A hit is compared with another hit and costs nothing. Compared with a miss it would appear to save time.
    table, *_ = changes([Costs.of(record, True)], Labels([record])).split("\n\n")
    rows = {row["change"]: row for row in rows_of(table)}
    assert abs(float(rows["graph hit"]["mean"])) < 500
    assert float(rows["graph miss"]["mean"]) > 8000


class Sized(NullSession):
    """A session that pays for each new size; sizes differ from request to request."""

    def changing(self, feeds: Feeds) -> Iterator[str]:
        key = int(feeds["input_ids"][0, 0])
        if key not in self._seen:
            self._seen.add(key)  # type: ignore[arg-type]
            self._null_stream.spend(500)
        return super().changing(feeds)


def test_first_use_costs_are_not_part_of_a_change(measured: Measured) -> None:
    visits = Costs.of(measured(FIXED, session=lambda costs: Sized("ok", costs), repeats=4), False).visits
    assert max(v.whole.max() for v in visits.values()) < 200e6


def test_time_limits_apply_to_pairs_and_replays(measured: Measured) -> None:
    hasty = Effort(0.1, 0.1, 2, 10, 0.1, pairs_s=2.0, replay_s=3.0)
    record = measured(FIXED, repeats=1000, switches=(0.01,), effort=hasty)
    counts = {
        len(transition["samples"]["whole"])
        for transition in json_of(record)["scores"]["transitions"]
        if not transition["cuda_graph"]
    }
    # One round has 27 requests of 10 to 30 ms.
    assert counts <= {2, 3, 4, 5, 6}
    assert len(counts) == 1
    replay = json_of(record)["scores"]["replays"][0]
    assert 1 <= len(replay["blocks"]) < 10
    assert sum(replay["blocks"]) == len(record.measurements[0].samples) < replay["asked"]
