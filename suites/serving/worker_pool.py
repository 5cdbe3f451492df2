"""A pool of workers that run batches at the same time, in threads or in processes."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from backends.base import Opening, Session, opened_session
from suites.measuring.clock import Clock
from suites.serving.arrivals import Arrived
from suites.serving.finished_queue import FinishedQueue
from suites.serving.workers import Finished, Runner


class WorkerPool:
    """Workers in threads of this process. Each one opens its own runner and uses it alone.

    A runner has a session of this process, or it is another process, on whose answers the thread waits.
    """

    def __init__(self, count: int, opened: Callable[[int], AbstractContextManager[Runner]]) -> None:
        """
        Args:
            opened: opens the runner of the worker with this number.
        """
        self._count, self._opened = count, opened
        self._batches: queue.SimpleQueue[Sequence[Arrived] | None] = queue.SimpleQueue()
        self._results = FinishedQueue[list[Finished] | Exception]()
        self._threads: list[threading.Thread] = []
        self._clock: Clock | None = None
        self.busy = 0

    @property
    def idle(self) -> int:
        return self._count - self.busy

    def __enter__(self) -> WorkerPool:
        with ExitStack() as stack:
            stack.callback(self._stop)
            for number in range(self._count):
                # One after another: vendors' libraries may not open two sessions at the same time.
                self._threads.append(threading.Thread(target=self._work, args=(number,), daemon=True))
                self._threads[-1].start()
                self._results_of(self._results.take(None))
            stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop()

    def submit(self, batch: Sequence[Arrived]) -> None:
        self.busy += 1
        self._batches.put(batch)

    def wait(self, until: int | None) -> list[Finished]:
        assert self._clock is not None
        seconds = None if until is None else (until - self._clock.now()) / 1e9
        batches = self._results.take(seconds)
        self.busy -= len(batches)
        return self._results_of(batches)

    def _work(self, number: int) -> None:
        try:
            with self._opened(number) as runner:
                self._clock = runner.clock
                self._results.put([])
                while (batch := self._batches.get()) is not None:
                    self._results.put(runner.run(batch))
        except Exception as error:  # Vendors' errors have no common type.
            traceback.print_exc()
            self._results.put(error)

    def _results_of(self, results: Sequence[list[Finished] | Exception]) -> list[Finished]:
        finished: list[Finished] = []
        for result in results:
            if isinstance(result, Exception):
                raise result
            finished += result
        return finished

    def _stop(self) -> None:
        for _ in self._threads:
            self._batches.put(None)
        for thread in self._threads:
            thread.join()


def thread_pool(count: int, opening: Callable[[], Opening], runner: Callable[[Session], Runner]) -> WorkerPool:
    """Return a pool of threads with a session each.

    Args:
        opening: starts to open a session, see Backend.opening.
        runner: returns the runner of a session.
    """

    @contextmanager
    def opened(number: int) -> Iterator[Runner]:
        with opened_session(opening()) as session:
            yield runner(session)

    return WorkerPool(count, opened)
