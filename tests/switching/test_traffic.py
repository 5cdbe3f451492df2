"""Seeded traces, the user's file of requests, and the inputs of requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from backends.base import Shape
from backends.cache import ArtifactCache
from backends.inputs.batches import InputSource
from backends.inputs.lengths import Lengths
from backends.inputs.request_inputs import REFERENCES, SETS, prepare_request_sets, read_sets, request_lengths
from suites.schema.refusals import Refused
from suites.switching.traffic import (
    BLOCKS,
    MAX_REQUESTS,
    blocks_of_runs,
    draw_trace,
    euler_circuit,
    fitting_shape,
    split_blocks,
    trace_from_file,
    trace_of_runs,
)
from suites.switching.workload import Workload

SIZES = [(1, 16), (2, 16), (3, 16)]
HISTOGRAM = Lengths("histogram", "random", values=(10, 40), counts=(9, 1))
Tiny = Callable[[str], tuple[Path, str]]


@pytest.mark.parametrize("switch", [0.001, 0.1, 0.9, 1])
def test_runs_switch_at_the_requested_rate_and_use_all_shapes_equally(switch: float) -> None:
    (trace,) = trace_of_runs(5000, switch, 4, seed=1)
    changes = [pair for pair in pairwise(trace) if pair[0] != pair[1]]
    assert len(changes) == round(switch * 4999)
    assert all(count == pytest.approx(1250, abs=1) for count in Counter(trace).values())
    assert trace_of_runs(5000, switch, 4, seed=1) == [trace]
    if switch == 1:
        assert min(Counter(changes).values()) > 300
        assert len(Counter(changes)) == 12


def test_runs_without_changes_have_one_stretch_per_shape() -> None:
    assert trace_of_runs(6, 0, 3, seed=0) == [[0, 0], [1, 1], [2, 2]]
    assert trace_of_runs(3, 0.5, 1, seed=0) == [[0, 0, 0]]
    assert trace_of_runs(3, 0, 2, seed=0) == [[0, 0], [1]]


def test_runs_are_long_enough_for_every_shape() -> None:
    (trace,) = trace_of_runs(100, 0.01, 4, seed=0)
    assert len(trace) == 301
    assert set(trace) == {0, 1, 2, 3}


@pytest.mark.parametrize("switch", [0.01, 0.1, 0.5, 1])
def test_each_block_is_balanced_and_all_have_a_hundred_switches(switch: float) -> None:
    blocks = blocks_of_runs(500, switch, 6, seed=0)
    assert len(blocks) == BLOCKS
    assert len({str(block) for block in blocks}) == BLOCKS
    switches = 0
    for (trace,) in blocks:
        counts = Counter(trace)
        assert set(counts) == set(range(6))
        assert max(counts.values()) - min(counts.values()) <= 1
        switches += sum(a != b for a, b in pairwise(trace))
    assert switches >= 90
    requests = sum(len(trace) for (trace,) in blocks)
    assert requests == pytest.approx(max(500, 100 / switch), rel=0.03)
    assert blocks_of_runs(60, 0, 3, seed=0)[0] == [[0, 0], [1, 1], [2, 2]]


def test_a_switching_probability_that_takes_too_many_requests_is_refused() -> None:
    with pytest.raises(Refused, match=f"at most {MAX_REQUESTS} are allowed"):
        blocks_of_runs(500, 1e-5, 6, seed=0)


def test_the_blocks_of_a_trace_contain_all_of_it() -> None:
    trace = list(range(205))
    blocks = split_blocks(trace)
    assert len(blocks) == 10
    assert [request for block in blocks for stretch in block for request in stretch] == trace
    assert split_blocks([1, 2, 3]) == [[[1, 2, 3]]]


def test_a_walk_visits_every_pair_equally_often() -> None:
    path = euler_circuit(5, 3, seed=0)
    assert Counter(pairwise(path)) == Counter({(a, b): 3 for a in range(5) for b in range(5)})
    assert euler_circuit(5, 3, seed=1) != path


def test_requests_of_random_lengths_use_the_shape_that_fits_their_longest_sequence() -> None:
    shapes = [(1, 16), (1, 64), (8, 16), (8, 64)]
    trace = draw_trace(400, HISTOGRAM, shapes, 0)
    share = Counter(trace)
    assert share[0] / (share[0] + share[1]) == pytest.approx(0.9, abs=0.06)
    assert share[2] / (share[2] + share[3]) == pytest.approx(0.9**8, abs=0.08)


def test_a_request_file_is_read_and_its_errors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text("1 16\n\n2, 9\n")
    assert trace_from_file(str(path), SIZES) == [0, 1]
    for text, says in (
        ("1 16\n\n2\n", "line 3: '2' is not a batch"),
        ("1 16\n9 16\n", "line 2: no shape fits 9x16"),
        ("1 ²\n", "line 1: '1 ²' is not a batch"),
        ("1 ١٦\n", "line 1: '1 ١٦' is not a batch"),
        ("1 16\n1 -4\n", "line 2: '1 -4' is not a batch"),
        ("1 " + "9" * 5000, "line 1: '1 9999"),
        ("1 16\n" * (MAX_REQUESTS + 1), f"has {MAX_REQUESTS + 1} requests"),
    ):
        path.write_text(text)
        with pytest.raises(Refused, match=says):
            trace_from_file(str(path), SIZES)
    path.write_bytes(b"1 16\n1 \xff16\n")
    with pytest.raises(Refused, match="line 2: it is not UTF-8"):
        trace_from_file(str(path), SIZES)
    assert fitting_shape((2, 10), [(8, 16), (2, 64), (4, 16)]) == 2


ASKED = [Shape(1, 16), Shape(4, 16), Shape(1, 64), Shape(4, 64), Shape(1, 128)]


@pytest.mark.parametrize("index", range(len(ASKED)))
def test_input_sets_of_a_shape_have_lengths_that_need_that_shape(index: int) -> None:
    sets, made_up = request_lengths(HISTOGRAM, ASKED, index, 16, 0)
    shape = ASKED[index]
    assert len(sets) == 16
    assert {len(lengths) for lengths in sets} == {shape.batch}
    assert all(
        fitting_shape((len(lengths), max(lengths)), [(s.batch, s.sequence) for s in ASKED]) == index for lengths in sets
    )
    # No length exceeds 40, so 1x128 gets only lengths that are generated for it.
    assert made_up == (shape.sequence == 128)
    if shape == Shape(4, 64):
        # At least one of four is long; the number of others is random.
        assert 1 < np.mean([lengths.count(40) for lengths in sets]) < 2
    assert request_lengths(HISTOGRAM, ASKED, index, 16, 0)[0] == sets


def test_sets_are_padded_up_and_have_references(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, sha256 = tiny("bert")
    asked, runs_at = [Shape(1, 16), Shape(2, 32)], [Shape(2, 32)]
    prepared = prepare_request_sets(InputSource(folder, sha256, HISTOGRAM, [], 0, "cpu", shared_cache), asked, runs_at)
    assert prepared.notes["shapes"]["2x32"]["tokens"] < 2 * 32
    arrays = dict(np.load(prepared.path))
    first = list(read_sets(arrays, 0))
    assert len(first) == 2 * SETS
    for feeds, expected in first:
        assert feeds["input_ids"].shape == (2, 32)
        # One row of the request, and one row that only fills the batch.
        assert feeds["attention_mask"].sum(1).tolist() == [10, 2]
        assert not expected or expected["reference"].shape == (1, 32, 64)
    assert [bool(expected) for _, expected in first] == [True] * REFERENCES + [False] * (2 * SETS - REFERENCES)
    assert len({feeds["input_ids"].tobytes() for feeds, _ in first}) == 2 * SETS
    workload = Workload.of(arrays, asked, runs_at)
    assert workload.runs_at == (0, 0)
    turn = workload.cycles_by_built_shape()[0]
    masks = [next(turn)["attention_mask"].sum(1).tolist() for _ in range(2 * SETS)]
    assert masks[0] == [10, 2]
    assert masks[1][1] > 2


def test_full_input_sets_differ_only_in_their_tokens(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, sha256 = tiny("bert")
    shapes = [Shape(2, 8)]
    lengths = Lengths(tokens="random")
    arrays = dict(
        np.load(
            prepare_request_sets(InputSource(folder, sha256, lengths, [], 0, "cpu", shared_cache), shapes, shapes).path
        )
    )
    sets = [feeds for feeds, _ in read_sets(arrays, 0)]
    assert all(feeds["attention_mask"].all() for feeds in sets)
    assert len({feeds["input_ids"].tobytes() for feeds in sets}) == 2 * SETS
