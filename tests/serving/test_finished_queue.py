"""FinishedQueue: the order of items, time limits, and several threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from conftest import ROOT

from suites.serving.finished_queue import FinishedQueue


def test_items_come_in_their_order_and_once() -> None:
    finished = FinishedQueue[int]()
    assert finished.take(0) == []
    for number in range(3):
        finished.put(number)
    assert finished.take(None) == [0, 1, 2]
    finished.put(3)
    assert finished.take(60) == [3]
    assert finished.take(-1) == []


def test_no_item_of_several_threads_is_lost() -> None:
    finished, count = FinishedQueue[int](), 4000
    threads = [threading.Thread(target=lambda: [finished.put(n) for n in range(count)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    taken: list[int] = []
    while len(taken) < 3 * count:
        taken += finished.take(None)
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted([*range(count)] * 3)


@pytest.fixture
def busy_cpu() -> Iterator[None]:
    """Threads that take the interpreter's lock while the test runs, so that deadlines pass inside of calls."""
    ended = threading.Event()

    def compute() -> None:
        while not ended.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=compute) for _ in range(3)]
    for thread in threads:
        thread.start()
    yield
    ended.set()
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures("busy_cpu")
def test_a_wait_ends_if_its_time_is_over_before_it_begins() -> None:
    """`SimpleQueue.get` waits forever here, after some hundred calls."""
    finished = FinishedQueue[int]()
    for _ in range(150):
        finished.put(1)
        assert finished.take(None) == [1]
        assert finished.take(2e-6) == []


def test_no_module_waits_for_a_simple_queue_with_a_timeout() -> None:
    users = [path for folder in ("suites", "backends") for path in ROOT.glob(f"{folder}/**/*.py")
             if "SimpleQueue[" in path.read_text(encoding="utf-8")]  # fmt: skip
    assert [path.name for path in users] == ["worker_pool.py"]
    assert not any("get(timeout" in path.read_text(encoding="utf-8") for path in users)
