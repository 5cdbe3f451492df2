"""suite=serving in simulated time: batches, waits, full queues, requests that fail, and the search for a load."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from virtual_time import LENGTHS, Programmed, VirtualClock, some_texts

from backends.base import Feeds, Session, Shape
from backends.null_ import null
from backends.null_.null import Costs, NullSession
from suites.measuring.clock import Effort, HostClock
from suites.measuring.cpu_load import CpuLoad, CpuReading
from suites.serving import preparation
from suites.serving.arrivals import Arrived, ClosedLoop, OpenLoop
from suites.serving.batch_policy import BatchPolicy
from suites.serving.length_groups import similar_requests
from suites.serving.load_search import LoadResult, ServedLoads, find_highest
from suites.serving.measure import ServingMeasurement
from suites.serving.other_processes import limited_searches
from suites.serving.preparation import Preparation
from suites.serving.request_texts import RequestTexts
from suites.serving.result import OFFERED, SATURATED, SEARCH, LoadPoint, ServingResult
from suites.serving.serving_loop import Served, Server
from suites.serving.suite import Bound, ServingQuestion
from suites.serving.worker_pool import WorkerPool, thread_pool
from suites.serving.workers import BatchRunner, OwnThread

MS = 1_000_000
SHARES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2)


def load(arrivals_ms: Sequence[float], texts: Sequence[int] = ()) -> OpenLoop:
    times = np.asarray([round(at * MS) for at in arrivals_ms], np.int64)
    return OpenLoop(times, np.asarray(texts or [0] * len(arrivals_ms)))


def served_by(programmed: Programmed, requests: OpenLoop, monkeypatch: pytest.MonkeyPatch) -> Served:
    return programmed.server(monkeypatch).serve(requests)


def latencies_ms(served: Served) -> list[float]:
    return [latency / MS for latency in served.latencies]


def test_a_batch_has_the_requests_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = BatchPolicy(most_requests=2)
    served = served_by(Programmed(10.0, policy), load([0, 1, 2, 3]), monkeypatch)
    assert latencies_ms(served) == [10, 19, 18, 27]
    assert [wait / MS for wait in served.queue_times] == [0, 9, 8, 17]
    assert dict(served.batches) == {1: 2, 2: 1}


def test_an_incomplete_batch_waits_until_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = BatchPolicy(most_requests=3, wait_ns=5 * MS)
    served = served_by(Programmed(1.0, policy), load([0, 4, 20, 21, 22]), monkeypatch)
    # The first batch starts at 5 ms, and the second one at 22 ms, because it is complete.
    assert latencies_ms(served) == [6, 2, 3, 2, 1]
    assert dict(served.batches) == {2: 1, 3: 1}


def test_a_batch_waits_also_if_no_other_request_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = BatchPolicy(most_requests=4, wait_ns=5 * MS)
    served = Programmed(1.0, policy).server(monkeypatch).serve(ClosedLoop(1, 0.012, np.zeros(1, int)))
    assert latencies_ms(served) == [6, 6]


def test_tokens_limit_a_batch_with_its_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts have 8, 16, 24 and 32 tokens. Two of 8 and 16 have 32 with padding, and one of 32 is alone."""
    policy = BatchPolicy(most_requests=8, most_tokens=32)
    served = served_by(Programmed(1.0, policy), load([0] * 5, [0, 1, 3, 0, 0]), monkeypatch)
    assert dict(served.batches) == {1: 1, 2: 2}
    assert (served.tokens, served.padded_tokens) == (8 + 16 + 32 + 8 + 8, 32 + 32 + 16)
    single = served_by(Programmed(1.0, replace(policy, most_tokens=4)), load([0] * 3, [0, 1, 3]), monkeypatch)
    assert dict(single.batches) == {1: 3}


def test_requests_that_find_a_full_queue_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    served = served_by(Programmed(10.0, BatchPolicy(queue=2)), load([0, 1, 2, 3, 4, 15]), monkeypatch)
    # The first one runs, two wait, and two are rejected. At 15 ms there is place again.
    assert (served.sent, served.rejected, len(served.latencies)) == (6, 2, 4)
    assert latencies_ms(served) == [10, 19, 28, 25]


def test_a_request_that_is_too_long_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = BatchPolicy(most_requests=4, longest=24)
    served = served_by(Programmed(1.0, policy), load([0, 0, 0], [0, 3, 2]), monkeypatch)
    assert (served.sent, served.too_long, served.errors) == (3, 1, 0)
    assert dict(served.batches) == {2: 1}


def test_a_client_whose_request_is_too_long_sends_another(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Programmed(1.0, BatchPolicy(longest=24)).server(monkeypatch)
    served = server.serve(ClosedLoop(2, 0.01, np.asarray([0, 3])))
    assert len(served.latencies) == served.in_session / MS
    assert served.too_long >= len(served.latencies) - 2 > 0


def test_a_request_that_raises_an_error_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass over the batch fails, so its requests run alone."""

    def fails(feeds: Feeds) -> bool:
        return bool((feeds["input_ids"] == 11).any())

    programmed = Programmed(1.0, BatchPolicy(most_requests=4), fails=fails)
    served = served_by(programmed, load([0, 0, 0], [0, 1, 2]), monkeypatch)
    assert (served.errors, served.first_error) == (1, "RuntimeError: no kernel for this input")
    assert dict(served.batches) == {1: 2}
    assert len(served.latencies) == 2


def test_a_pool_runs_batches_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    served = served_by(Programmed(10.0, workers=2), load([0, 1, 2, 3]), monkeypatch)
    assert latencies_ms(served) == [10, 10, 18, 18]
    assert served.end == 21 * MS


@pytest.mark.parametrize(
    ("texts", "built", "shape"),
    [([1], (), (1, 16)), ([0, 2], (), (2, 24)), ([0, 2], ((1, 32), (4, 24), (4, 32)), (4, 24)),
     ([1], ((1, 16), (4, 32)), (1, 16)), ([1], ((1, 32),), (1, 32))],
    ids=str,
)  # fmt: skip
def test_a_batch_is_padded(texts: list[int], built: tuple[tuple[int, int], ...], shape: tuple[int, int]) -> None:
    requests = replace(some_texts(), names=("input_ids", "attention_mask", "token_type_ids"))
    chosen = requests.shape(texts, [Shape(*size) for size in built])
    assert (chosen.batch, chosen.sequence) == shape
    feeds = requests.feeds(requests.rows(texts), chosen)
    assert {array.shape for array in feeds.values()} == {shape}
    assert {array.dtype for array in feeds.values()} == {np.dtype(np.int32)}
    for row, text in enumerate(texts):
        length = LENGTHS[text]
        assert (feeds["input_ids"][row, :length] == 10 + text).all()
        assert not feeds["input_ids"][row, length:].any()
        assert feeds["attention_mask"][row].tolist() == [1] * length + [0] * (shape[1] - length)
    assert (feeds["attention_mask"].sum(1)[len(texts) :] == 2).all()
    assert not feeds["token_type_ids"].any()


def test_texts_are_read_as_they_were_written() -> None:
    written = some_texts()
    read = RequestTexts.read(written.arrays())
    assert (read.lengths, read.names, read.pad) == (written.lengths, written.names, written.pad)
    np.testing.assert_array_equal(read.ids, written.ids)


@pytest.mark.parametrize("limit", [60.0, 300.0, 980.0])
def test_the_highest_load_is_bisected(limit: float) -> None:
    tried: list[float] = []

    def is_within(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    highest = find_highest(is_within, 50.0, 1000.0, Bound(10, 99, 20), {})
    assert highest.load is not None
    assert highest.above is not None
    assert highest.load <= limit < highest.above <= 1.03 * highest.load
    assert len(tried) == highest.tried < 12


def test_the_search_has_a_limit_of_steps_and_ends_at_the_highest_load() -> None:
    few = find_highest(lambda rate: rate <= 300, 50.0, 1000.0, Bound(10, 99, 3), {})
    assert few.tried == 3
    every = find_highest(lambda rate: True, 50.0, 1000.0, Bound(10, 99, 20), {})
    assert (every.load, every.above, every.tried) == (1000.0, None, 2)


def test_an_impossible_bound_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass takes 10 ms, so no load has latencies within 5 ms."""
    effort, question = Effort(0.1, 1.0, 2, 3, 0.5), ServingQuestion("poisson", BatchPolicy(), bounds=(Bound(5, 99, 8),))
    server = Programmed(10.0).server(monkeypatch)
    result = ServingMeasurement(server, question, effort, lambda text: None, reads_cpu=False).run()
    (highest,) = result.highest
    assert (highest.load, highest.tried) == (None, 1)
    assert highest.reason == "fewer are at 5 requests/s, the lightest load tried"
    assert len([point for point in result.points if point.purpose == SEARCH]) == 1


def test_loads_are_shares_of_the_highest_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 4 take 10 ms: 400 requests/s at most. An M/D/1 queue has 99% within its bound at some lower load."""
    policy = BatchPolicy(most_requests=4, queue=200)
    question = ServingQuestion("poisson", policy, bounds=(Bound(30, 99, 8), Bound(60, 99, 8)), shares=SHARES)
    server = Programmed(10.0, policy).server(monkeypatch)
    result = ServingMeasurement(server, question, Effort(0.1, 5.0, 2, 3, 0.5), lambda text: None, reads_cpu=False).run()
    saturated, *offered = [point for point in result.points if point.purpose != SEARCH]
    assert saturated.purpose == SATURATED
    assert saturated.achieved == pytest.approx(400)
    assert saturated.batches == {"4": 501}
    assert [point.offered for point in offered] == pytest.approx([40, 120, 200, 280, 320, 360, 400, 480], rel=0.01)
    for point in offered:
        assert point.sent == point.answered + point.rejected + point.too_long + point.errors
        assert point.latency.p50 <= point.latency.p90 <= point.latency.p99 <= point.latency.p999 <= point.latency.max
    assert offered[-1].rejected > 0
    assert offered[-1].achieved == pytest.approx(400, rel=0.02)
    assert [point.mean_batch for point in offered[:5]] == sorted(point.mean_batch for point in offered[:5])
    within_30, within_60 = (highest.load or 0 for highest in result.highest)
    assert 120 < within_30 < within_60 <= 440
    # The offered loads bracket the result, so each bound needs few more; a load near the bound is served twice.
    search = [point.offered for point in result.points if point.purpose == SEARCH]
    assert len({*search} - {point.offered for point in offered}) <= 6
    assert max(Counter(point.offered for point in result.points if point.offered).values()) == 2
    for point in result.points:
        assert point.shares[0] <= point.shares[1]


def test_one_stall_does_not_lower_the_highest_load(monkeypatch: pytest.MonkeyPatch) -> None:
    question = ServingQuestion("poisson", BatchPolicy(), bounds=(Bound(8, 99, 6),), shares=(0.3,))
    effort = Effort(0.1, 1.0, 2, 3, 0.5)

    def result(stalls: Mapping[int, float]) -> tuple[ServingResult, int]:
        server = Programmed(1.0, BatchPolicy(), stalls=stalls).server(monkeypatch)
        found = ServingMeasurement(server, question, effort, lambda text: None, reads_cpu=False).run()
        return found, server.workers.runner.session._calls  # type: ignore[attr-defined]

    clean, calls = result({})
    carried = max(point.offered for point in clean.points if point.shares[0] >= 0.99)
    index = next(index for index, point in enumerate(clean.points) if point.offered == carried)
    after = sum(point.answered for point in clean.points[index + 1 :]) + clean.points[index].answered // 2
    stalled, _ = result({calls - after: 30.0})
    twice = [point for point in stalled.points if point.offered == pytest.approx(carried)]
    assert [point.shares[0] >= 0.99 for point in twice] == [False, True]
    (first,), (second,) = clean.highest, stalled.highest
    assert second.load == pytest.approx(first.load, rel=0.1)
    assert second.tried == len({point.offered for point in stalled.points if point.offered})


def test_a_load_is_too_high_after_two_results() -> None:
    shares = {100.0: [1.0], 200.0: [0.95], 300.0: [0.95, 0.992], 400.0: [0.9], 500.0: [0.9, 0.98], 600.0: [0.1]}
    results = {load: [LoadResult(share) for share in found] for load, found in shares.items()}
    served = ServedLoads(results, 0.99)
    assert served.known == {100.0: True, 300.0: True, 500.0: False, 600.0: False}
    assert served.next_unclear == 400.0
    assert ServedLoads({**results, 400.0: [LoadResult(0.9), LoadResult(0.9)]}, 0.99).next_unclear is None
    assert ServedLoads({700.0: [LoadResult(0.9)], 600.0: [LoadResult(0.8)]}, 0.99).next_unclear == 600.0


@pytest.mark.parametrize(
    ("results", "within", "limited"),
    [
        ([(0.995, True)], True, False),
        ([(0.0, True)], None, True),
        ([(0.0, True), (0.2, True)], None, True),
        ([(0.0, True), (0.2, True), (0.3, True)], False, True),
        ([(0.0, True), (0.2, True), (0.992, True)], True, False),
        ([(0.0, True), (0.9, False)], None, True),
        ([(0.0, True), (0.9, False), (0.9, False)], False, False),
        ([(0.0, True), (0.2, False)], False, False),
    ],
)
def test_a_disturbed_result_does_not_decide_that_a_load_is_too_high(
    results: list[tuple[float, bool]], within: bool | None, limited: bool
) -> None:
    served = ServedLoads({100.0: [LoadResult(*result) for result in results]}, 0.99)
    assert served.known.get(100.0) is within
    assert served.next_unclear == (100.0 if within is None else None)
    assert served.limited_by_others(100.0) is limited
    assert not served.limited_by_others(200.0)


@pytest.mark.parametrize(("busy", "served"), [(0, [1, 1]), (1, [2, 2]), (2, [3, 3]), (3, [3, 1])])
def test_a_search_serves_loads_again_that_other_processes_disturbed(
    monkeypatch: pytest.MonkeyPatch, busy: int, served: list[int]
) -> None:
    """Others take 60% of the CPU time while a load is served the first `busy` times; a pass then takes 100 ms."""
    counts, serving = Counter[float](), [0.0]

    def active() -> bool:
        return 0 < counts[serving[0]] <= busy

    def load(before: CpuReading | None, after: CpuReading | None) -> CpuLoad:
        return CpuLoad(0.6, 0.4, 0.01) if active() else CpuLoad(0.055, 0.0, 0.01)

    def recorded(rate: float, purpose: str) -> LoadPoint:
        serving[0] = rate
        counts[rate] += 1
        point = opened(rate, purpose)
        serving[0] = 0.0
        return point

    server = Programmed(1.0).server(monkeypatch)
    spend = null._spend
    monkeypatch.setattr(null, "_spend", lambda ms: spend(100 * ms if active() else ms))
    monkeypatch.setattr("suites.serving.measure.cpu_load", load)
    question = ServingQuestion("poisson", BatchPolicy(), bounds=(Bound(8, 99, 4),), shares=(0.3, 0.6))
    measurement = ServingMeasurement(server, question, Effort(0.1, 1.0, 2, 3, 0.5), lambda text: None)
    opened = measurement.open
    monkeypatch.setattr(measurement, "open", recorded)
    result = measurement.run()
    (highest,) = result.highest
    offered = [point.offered for point in result.points if point.purpose == OFFERED]
    assert [counts[rate] for rate in offered] == served
    assert max(counts.values()) <= 3
    shares = {(point.cpu_others, point.cpu_steal, point.cpu_resolution) for point in result.points if point.disturbed}
    assert shares == ({(0.6, 0.4, 0.01)} if busy else set())
    if busy == 3:
        assert (highest.load, bool(limited_searches(result))) == (None, True)
    else:
        assert (highest.load or 0) >= offered[1]


def test_the_lengths_of_a_trace_are_those_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    question = ServingQuestion("trace", BatchPolicy(), trace=((0, 16), (MS, 32), (500 * MS, 16)))
    server = Programmed(1.0, texts=some_texts((16, 32))).server(monkeypatch)
    (point,) = ServingMeasurement(server, question, Effort(0.1, 1.0, 2, 3, 0.5), lambda text: None).run().points
    assert (point.tokens, point.answered, point.offered) == (64, 3, 6.0)


class Recording(NullSession):
    """Session that records the thread in which it is opened, used and closed."""

    def __init__(self, threads: list[tuple[str, int]]) -> None:
        super().__init__("ok", Costs())
        self._threads = threads
        threads.append(("open", threading.get_ident()))

    def step(self) -> None:
        self._threads.append(("step", threading.get_ident()))
        super().step()

    def close(self) -> None:
        self._threads.append(("close", threading.get_ident()))


def three_threads(session: type[NullSession], threads: list[tuple[str, int]]) -> WorkerPool:
    def opening() -> Iterator[tuple[str, Session | None]]:
        return iter([("open", session(threads))])  # type: ignore[call-arg, arg-type]

    return thread_pool(3, opening, lambda opened: BatchRunner(opened, HostClock(), some_texts(), BatchPolicy()))


def test_each_thread_of_a_pool_has_its_own_session() -> None:
    threads: list[tuple[str, int]] = []
    with three_threads(Recording, threads) as pool:
        server = Server(pool, HostClock(), some_texts(), BatchPolicy())
        served = server.serve(ClosedLoop(6, 0.1, np.arange(4)))
    assert len(served.latencies) == served.sent > 6
    assert min(served.latencies) > 0
    by_kind = {kind: [thread for name, thread in threads if name == kind] for kind in ("open", "step", "close")}
    assert len(set(by_kind["open"])) == len(by_kind["open"]) == 3
    assert sorted(by_kind["close"]) == sorted(by_kind["open"])
    assert set(by_kind["step"]) <= set(by_kind["open"])
    assert threading.get_ident() not in by_kind["open"]


class Unopened(NullSession):
    def __init__(self, threads: list[tuple[str, int]]) -> None:
        raise MemoryError("no memory for another one")


def test_a_session_of_a_pool_that_cannot_be_opened_ends_the_measurement() -> None:
    before = threading.active_count()
    with pytest.raises(MemoryError, match="no memory for another one"), three_threads(Unopened, []):
        pass
    assert threading.active_count() == before


def test_a_batch_of_a_pool_that_fails_is_counted() -> None:
    class Faulty(Recording):
        def step(self) -> None:
            raise RuntimeError("no kernel")

    with three_threads(Faulty, []) as pool:
        server = Server(pool, HostClock(), some_texts(), BatchPolicy(most_requests=2))
        served = server.serve(load([0, 0, 0, 0, 0]))
    assert (served.errors, len(served.latencies), served.first_error) == (5, 0, "RuntimeError: no kernel")


def test_a_runner_gives_the_times_of_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Programmed(2.0, reading_ns=1000).server(monkeypatch)
    (finished,) = server.workers.runner.run([Arrived(0, 1)])  # type: ignore[attr-defined]
    assert finished.ready - finished.begin == 1000
    assert finished.end - finished.ready == 2 * MS + 1000
    assert finished.computed == 16


def test_known_loads_bracket_the_search() -> None:
    tried: list[float] = []

    def is_within(rate: float) -> bool:
        tried.append(rate)
        return rate <= 300

    known = {100.0: True, 250.0: True, 400.0: False, 900.0: False}
    highest = find_highest(is_within, 50.0, 1000.0, Bound(10, 99, 20), known)
    assert highest.load is not None
    assert highest.load <= 300 < (highest.above or 0) <= 1.03 * highest.load
    assert min(tried) > 250
    assert max(tried) < 400
    assert highest.tried == len(known) + len(tried)
    tried.clear()
    none = find_highest(is_within, 500.0, 1000.0, Bound(10, 99, 20), {400.0: False})
    assert (none.load, none.above, tried) == (None, 400.0, [])


def test_packed_batches_are_limited_by_their_tokens_without_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts have 8, 16, 24 and 32 tokens; 8 + 32 + 8 fit into 48 tokens, padded only one of 32 does."""
    policy = BatchPolicy(most_requests=8, most_tokens=48, packed=True)
    served = served_by(Programmed(1.0, policy), load([0] * 4, [0, 3, 0, 0]), monkeypatch)
    assert dict(served.batches) == {3: 1, 1: 1}
    assert served.tokens == served.padded_tokens == 56
    rounded = replace(policy, multiple=32)
    assert served_by(Programmed(1.0, rounded), load([0] * 4, [0, 3, 0, 0]), monkeypatch).padded_tokens == 64 + 8
    # A built shape of 4x32 has a row without a request, of two tokens.
    assert some_texts().computed([0, 3, 0], Shape(4, 32), policy) == 50


class Graphs(NullSession):
    """Session on a simulated GPU, which records the shapes of its captures."""

    def __init__(self) -> None:
        super().__init__("ok", Costs(gpu_ms=1.0))
        self.captured: list[str] = []

    def capture(self) -> None:
        self.captured.append(self._shape)
        super().capture()


@pytest.mark.parametrize("built", [(), (Shape(1, 16), Shape(1, 32), Shape(3, 32))], ids=["longest", "built"])
def test_graphs_of_the_shapes_that_occur_are_captured(
    built: tuple[Shape, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, policy, session = VirtualClock(), BatchPolicy(most_requests=3), Graphs()
    monkeypatch.setattr(null, "_spend", clock.spend)
    Preparation(some_texts(), policy, built, graph=True, seconds=0.0).prepare(session, clock)
    # Batches with and without padding have the same graph, which the session captures once.
    assert len(set(session.captured)) == len(session.captured)
    if built:
        assert set(session.captured) == {"1x16", "1x32", "3x32"}
    else:
        assert {f"1x{length}" for length in LENGTHS} < set(session.captured)
        assert {shape[0] for shape in session.captured} == {"1", "2", "3"}
    server = Server(OwnThread(BatchRunner(session, clock, some_texts(), policy, built)), clock, some_texts(), policy)
    served = server.serve(load([0, 10, 10, 20, 20, 20], [1, 3, 2, 3, 0, 1]))
    assert dict(served.batches) == {1: 1, 2: 1, 3: 1}
    assert served.replayed == 3


def test_almost_every_full_packed_batch_has_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    lengths = np.clip(generator.lognormal(2.6, 0.5, 400).astype(int), 4, 64).tolist()
    texts = RequestTexts.of([range(length) for length in lengths], 0, ("input_ids", "attention_mask"))
    policy, built = BatchPolicy(most_requests=32, packed=True, multiple=32), (Shape(32, 32), Shape(32, 64))
    prepared = set()

    def prepare(_: Session, feeds: Feeds, graph: bool) -> None:
        shape = Shape(*feeds["input_ids"].shape)
        assert graph
        prepared.add((shape, min(-(-int(feeds["attention_mask"].sum()) // 32) * 32, shape.batch * shape.sequence)))

    monkeypatch.setattr(preparation, "prepare", prepare)
    Preparation(texts, policy, built, graph=True, seconds=0.0).prepare(NullSession("ok", Costs()), VirtualClock())
    batches = generator.choice(400, (5000, 32)).tolist()
    kinds = [
        (shape, texts.computed(batch, shape, policy)) for batch in batches for shape in [texts.shape(batch, built)]
    ]
    assert sum(kind not in prepared for kind in kinds) <= 10


def test_batches_are_prepared_without_graphs_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, session = VirtualClock(), NullSession("ok", Costs(step_ms=10.0))
    monkeypatch.setattr(null, "_spend", clock.spend)
    policy = BatchPolicy(most_requests=8)
    Preparation(some_texts(), policy, (), graph=False, seconds=0.1).prepare(session, clock)
    # Each batch takes three steps.
    assert clock.time == 120 * MS


@pytest.mark.parametrize(
    ("lengths", "most_tokens", "chosen"),
    [
        ([8, 32, 9, 30, 10], 0, [8, 9, 10]),
        ([30, 8, 9, 32, 31, 10], 0, [30, 31, 32]),
        ([8, 32], 0, [8, 32]),
        ([20, 8, 19, 40, 41], 0, [8, 19, 20]),
        ([30, 8, 32, 31], 64, [30, 31]),
        ([40, 8], 16, [40]),
    ],
    ids=str,
)
def test_a_batch_has_requests_of_similar_lengths(lengths: list[int], most_tokens: int, chosen: list[int]) -> None:
    policy = BatchPolicy(most_requests=3, most_tokens=most_tokens, grouped=True)
    assert [lengths[place] for place in similar_requests(lengths, policy)] == chosen


def test_groups_by_length_have_less_padding_and_lose_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of 8 and 32 tokens arrive in turn. Without groups each batch is padded to 32 tokens."""
    policy = BatchPolicy(most_requests=2)
    requests = [0, 3] * 10
    mixed = served_by(Programmed(1.0, policy), load([0] * 20, requests), monkeypatch)
    grouped = served_by(Programmed(1.0, replace(policy, grouped=True)), load([0] * 20, requests), monkeypatch)
    assert mixed.padded_tokens == 20 * 32
    assert grouped.padded_tokens == grouped.tokens == 10 * (8 + 32)
    assert len(grouped.latencies) == 20
    # The oldest request is in each batch: the first of 8 tokens, then the first of 32.
    assert latencies_ms(grouped)[:4] == [1, 1, 2, 2]
