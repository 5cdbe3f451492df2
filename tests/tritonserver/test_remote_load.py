"""Requests in flight to a server: counts of answers, rejections and errors, and statistics. No server runs here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from suites.measuring.clock import HostClock, now_ns
from suites.serving.arrivals import ClosedLoop, OpenLoop
from suites.serving.request_queue import BatchPolicy
from suites.serving.request_texts import RequestTexts
from suites.tritonserver.answers import AnswerCheck
from suites.tritonserver.client import Done, Statistics, TritonClient, check_client
from suites.tritonserver.load_server import RemoteServer, RemoteWorkers
from suites.tritonserver.server_process import ServerFailed

FULL = "[StatusCode.UNAVAILABLE] in ensemble: Exceeds maximum queue size"
TEXTS = RequestTexts.of([[1, 2], [3, 4, 5], [6] * 9], 0, ("input_ids",))
POLICY = BatchPolicy(queue=1 << 30, longest=8)


class Client:
    """Client whose answers come from a thread of their own."""

    texts, most = TEXTS, 50

    def __init__(self, answer: Callable[[int], tuple[object, str]]) -> None:
        self.answer, self.sent, self.lock = answer, 0, threading.Lock()

    def send(self, text: int, done: Done) -> None:
        number, self.sent = self.sent, self.sent + 1
        answer, error = self.answer(number)
        threading.Thread(target=done, args=(now_ns(), answer, error)).start()


def server(client: Client, alive: Callable[[], None] = lambda: None) -> tuple[RemoteServer, AnswerCheck]:
    check = AnswerCheck({text: np.float32([1, 2]) for text in range(3)}, 0.999)
    workers = RemoteWorkers(cast(TritonClient, client), HostClock(), check, alive)
    return RemoteServer(workers, HostClock(), TEXTS, POLICY), check


def load(count: int, texts: int = 2) -> OpenLoop:
    return OpenLoop(np.zeros(count, np.int64), np.arange(count) % texts)


def test_rejections_are_counted_apart_from_errors() -> None:
    kinds = [(np.float32([1, 2]), ""), (None, FULL), (None, "a fault")]
    remote, check = server(Client(lambda number: kinds[number % 3]))
    served = remote.serve(load(30))
    assert (served.sent, len(served.latencies), served.rejected, served.errors) == (30, 10, 10, 10)
    assert served.first_error == "a fault"
    assert (check.compared, check.wrong) == (10, 0)
    again = remote.serve(load(3))
    assert (again.rejected, again.errors, len(again.latencies)) == (1, 1, 1)


def test_a_request_that_is_too_long_is_not_sent() -> None:
    client = Client(lambda number: (np.float32([1, 2]), ""))
    served = server(client)[0].serve(load(9, texts=3))
    assert (served.sent, served.too_long, len(served.latencies), client.sent) == (9, 3, 6, 6)


def test_clients_of_a_closed_loop_wait_for_their_answers() -> None:
    client = Client(lambda number: (np.float32([1, 2]), ""))
    served = server(client)[0].serve(ClosedLoop(4, 0.05, np.zeros(1, np.int64)))
    assert served.sent == len(served.latencies) == client.sent >= 4


def test_a_server_that_has_ended_ends_the_load() -> None:
    def ended() -> None:
        raise ServerFailed("tritonserver ended with status 1: why")

    with pytest.raises(ServerFailed, match="why"):
        server(Client(lambda number: (None, "connection refused")), ended)[0].serve(load(1))


@pytest.mark.parametrize(
    ("answer", "expected", "wrong"),
    [
        ([1, 2], [1, 2.001], 0),
        ([1, 2], [2, 1], 1),
        ([1, 2, 3], [1, 2], 1),
        ([float("nan"), 2], [1, 2], 1),
        ([0.50004], [0.5], 0),
        ([0.6], [0.5], 1),
        ([0, 0], [0, 0], 0),
    ],
)
def test_answers_are_compared(answer: list[float], expected: list[float], wrong: int) -> None:
    check = AnswerCheck({0: np.float32(expected)}, 0.999)
    check.add(0, np.float32(answer))
    assert (check.compared, check.wrong) == (1, wrong)
    assert check.least_cosine is not None


def test_statistics_of_a_load_are_differences() -> None:
    def counters(count: int, batches: dict[str, int], text: bool) -> Statistics:
        kind: type = str if text else int
        parts = {
            name: {"count": kind(count), "ns": kind(count * ns)}
            for name, ns in {"queue": 5, "compute_input": 1, "compute_infer": 7, "compute_output": 2}.items()
        }
        batch_stats = [
            {"batch_size": kind(size), "compute_infer": {"count": kind(number)}} for size, number in batches.items()
        ]
        return Statistics.read({"inference_stats": {**parts, "fail": {}}, "batch_stats": batch_stats})

    for text in (True, False):  # gRPC has numbers as text
        before, after = counters(10, {"1": 2, "8": 1}, text), counters(30, {"10": 1, "8": 2, "1": 2, "2": 1}, text)
        times = after.since(before)
        assert (times.answered, times.queue, times.input, times.compute, times.output) == (20, 5.0, 1.0, 7.0, 2.0)
        assert [*times.batches.items()] == [("2", 1), ("8", 1), ("10", 1)]
        assert times.mean_batch == pytest.approx(20 / 3)
        assert before.since(before).answered == 0


def test_a_missing_client_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.base import Unavailable

    def missing(name: str) -> None:
        raise RuntimeError("The installation does not include http support")

    monkeypatch.setattr("suites.tritonserver.client.importlib.import_module", missing)
    with pytest.raises(Unavailable, match=r'pip install "tritonclient\[http\]"'):
        check_client(("http",))
