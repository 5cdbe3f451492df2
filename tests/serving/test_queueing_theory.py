"""suite=serving in simulated time: waits as in queueing theory, stalls in the tail, and the schedule of the load."""

from __future__ import annotations

import numpy as np
import pytest
from queueing_formulas import delay_probability, deterministic_wait
from virtual_time import Programmed

from backends.base import Array
from suites.serving.arrivals import ClosedLoop, OpenLoop, bursts, poisson
from suites.serving.batch_policy import BatchPolicy
from suites.serving.generator_limit import limit_of


def open_loop(times: Array) -> OpenLoop:
    return OpenLoop(times, np.zeros(len(times), int))


def test_the_formula_of_several_servers_is_that_of_one() -> None:
    for load in (0.3, 0.5, 0.8):
        assert deterministic_wait(1, load) == pytest.approx(load / (2 * (1 - load)), rel=1e-3)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_one_worker_waits_as_an_m_d_1_queue(load: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pollaczek-Khinchine: the mean wait is load / (2 (1 - load)) service times."""
    served = Programmed(step_ms=1.0).server(monkeypatch).serve(open_loop(poisson(1000 * load, 60, [1])))
    assert np.mean(served.queue_times) / 1e6 == pytest.approx(load / (2 * (1 - load)), rel=0.05)
    np.testing.assert_array_equal(np.asarray(served.latencies) - served.queue_times, 1_000_000)
    assert served.in_session / (served.end - served.start) == pytest.approx(load, rel=0.02)


@pytest.mark.parametrize(("workers", "load"), [(2, 0.6), (4, 0.7)])
def test_a_pool_waits_as_an_m_d_c_queue(workers: int, load: float, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Programmed(step_ms=1.0, workers=workers).server(monkeypatch)
    served = server.serve(open_loop(poisson(1000 * workers * load, 60_000 / (1000 * workers * load), [2])))
    wait = np.mean(served.queue_times) / 1e6
    assert wait == pytest.approx(deterministic_wait(workers, load), rel=0.05)
    # Of a queue with random service times it is about half.
    random = delay_probability(workers, load) / (workers * (1 - load))
    assert 0.4 * random < wait < 0.7 * random


def test_a_stall_is_in_the_tail_of_an_open_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass takes 500 ms. The requests that arrive meanwhile wait, which a closed loop with one client hides."""
    stalled = Programmed(step_ms=1.0, stalls={1000: 500.0})
    served = stalled.server(monkeypatch).serve(open_loop(poisson(200, 10, [3])))
    assert np.percentile(served.latencies, 99) > 300e6
    assert np.percentile(served.latencies, 50) < 2e6
    texts = np.zeros(1, int)
    hidden = stalled.server(monkeypatch).serve(ClosedLoop(1, 10, texts))
    assert np.percentile(hidden.latencies, 99) == 1e6
    assert max(hidden.latencies) == 501e6


def test_a_schedule_of_20_000_requests_per_second_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading of the clock takes 2 us here, and each request needs several."""
    server = Programmed(step_ms=0.001, reading_ns=2000).server(monkeypatch)
    assert len(poisson(20_000, 5, [4])) / 5 == pytest.approx(20_000, rel=0.01)
    times = poisson(20_000, 2, [4])
    served = server.serve(open_loop(times))
    assert served.sent == len(times) == len(served.latencies)
    assert served.end - served.start == pytest.approx(times[-1], rel=0.01)
    assert np.percentile(served.late, 99) <= 2 * 2000


def test_the_limit_of_the_generator_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request takes 10 us: 100,000 per second at most."""
    server = Programmed(step_ms=0.01, policy=BatchPolicy(queue=100_000)).server(monkeypatch)
    schedules = limit_of(server, (10_000.0, 60_000.0, 130_000.0), 0.1)
    assert [schedule.kept for schedule in schedules] == [True, True, False]
    assert schedules[2].error == pytest.approx(0.3, rel=0.1)


def test_times_of_a_poisson_process() -> None:
    times = poisson(1000, 50, [5])
    gaps = np.diff(times)
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1e6, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)
    np.testing.assert_array_equal(times, poisson(1000, 50, [5]))
    assert not np.array_equal(times[:100], poisson(1000, 50, [6])[:100])


def test_requests_of_a_burst_arrive_at_once_and_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    times = bursts(400, 100, 4, [7])
    assert len(times) / 100 == pytest.approx(400, rel=0.05)
    assert (np.diff(times.reshape(-1, 4)) == 0).all()
    waits = [
        np.mean(Programmed(step_ms=1.0).server(monkeypatch).serve(open_loop(schedule)).queue_times)
        for schedule in (poisson(400, 100, [7]), times)
    ]
    # The second to fourth request of a burst wait for 1, 2 and 3 others.
    assert waits[1] > waits[0] + 1.5e6


def test_a_closed_loop_has_one_request_of_each_client(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = BatchPolicy(most_requests=4)
    served = Programmed(step_ms=2.0, policy=policy).server(monkeypatch).serve(ClosedLoop(8, 1, np.zeros(1, int)))
    assert dict(served.batches) == {4: 501}
    # Every request but the first ones waits for the batch before it.
    assert set(served.latencies[8:]) == {4_000_000}
