"""Workers that run batches: the session of the server's own thread, or a pool of threads with a session each."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from backends.base import Opening, Session, Shape, opened_session
from suites.measuring.clock import Clock
from suites.schema.refusals import first_line
from suites.serving.arrivals import Arrived
from suites.serving.request_queue import BatchPolicy
from suites.serving.request_texts import RequestTexts


@dataclass(frozen=True)
class Finished:
    """A batch that was run. Times are in ns.

    Attributes:
        begin, ready, end: start, end of the arrangement of the arrays, and answer.
        computed: number of tokens of the batch, with its padding.
        error: error of the session in one line; empty if there is an answer.
        replayed: whether the batch replayed a CUDA graph.
    """

    batch: Sequence[Arrived]
    begin: int
    ready: int
    end: int
    computed: int
    error: str = ""
    replayed: bool = False


@dataclass(frozen=True)
class BatchRunner:
    """Runs batches in one session.

    Attributes:
        policy: rules of batches.
        padded_to: the shapes that a batch is padded to; empty to pad it to its longest request.
    """

    session: Session
    clock: Clock
    texts: RequestTexts
    policy: BatchPolicy
    padded_to: Sequence[Shape] = ()

    def run(self, batch: Sequence[Arrived]) -> list[Finished]:
        """Run a batch. If the session raises an error, run each request alone, so that one cannot fail the others."""
        begin = self.clock.now()
        texts = [request.text for request in batch]
        shape = self.texts.shape(texts, self.padded_to)
        feeds = self.texts.feeds(texts, shape)
        computed = self.texts.computed(texts, shape, self.policy)
        ready = self.clock.now()
        try:
            self.session.answer(feeds)
        except Exception as error:  # Vendors' errors have no common type.
            if len(batch) > 1:
                return [finished for request in batch for finished in self.run([request])]
            return [Finished(batch, begin, ready, self.clock.now(), computed, first_line(error))]
        return [Finished(batch, begin, ready, self.clock.now(), computed, replayed=self.session.replays)]


class Workers(Protocol):
    """Workers of one server."""

    @property
    def idle(self) -> int:
        """Number of workers that can take a batch."""
        ...

    @property
    def busy(self) -> int:
        """Number of workers whose batch was not returned by `wait` yet."""
        ...

    def submit(self, batch: Sequence[Arrived]) -> None:
        """Give a batch to an idle worker."""
        ...

    def wait(self, until: int | None) -> list[Finished]:
        """Return batches that have finished since the last call. If there are none, wait for one, or until the time
        `until` in ns."""
        ...


@dataclass
class OwnThread:
    """One worker in the thread of the server. `submit` returns when the batch has been run."""

    runner: BatchRunner
    _finished: list[Finished] = field(default_factory=list)

    @property
    def idle(self) -> int:
        return 0 if self._finished else 1

    @property
    def busy(self) -> int:
        return 1 if self._finished else 0

    def submit(self, batch: Sequence[Arrived]) -> None:
        self._finished = self.runner.run(batch)

    def wait(self, until: int | None) -> list[Finished]:
        finished, self._finished = self._finished, []
        if not finished and until is not None:
            self.runner.clock.wait_until(until)
        return finished


class ThreadPool:
    """Workers that are threads of this process. Each one opens its own session and uses it alone."""

    def __init__(self, count: int, opening: Callable[[], Opening], runner: Callable[[Session], BatchRunner]) -> None:
        """
        Args:
            opening: starts to open a session, see Backend.opening.
            runner: returns the runner of a session.
        """
        self._count, self._opening, self._runner = count, opening, runner
        self._batches: queue.SimpleQueue[Sequence[Arrived] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[list[Finished] | Exception] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._clock: Clock | None = None
        self.busy = 0

    @property
    def idle(self) -> int:
        return self._count - self.busy

    def __enter__(self) -> ThreadPool:
        with ExitStack() as stack:
            stack.callback(self._stop)
            for _ in range(self._count):
                # One after another: vendors' libraries may not open two sessions at the same time.
                self._threads.append(threading.Thread(target=self._work, daemon=True))
                self._threads[-1].start()
                self._result(self._results.get())
            stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop()

    def submit(self, batch: Sequence[Arrived]) -> None:
        self.busy += 1
        self._batches.put(batch)

    def wait(self, until: int | None) -> list[Finished]:
        assert self._clock is not None
        timeout = None if until is None else max(0, until - self._clock.now()) / 1e9
        try:
            finished = self._result(self._results.get(timeout=timeout))
            self.busy -= 1
            while not self._results.empty():
                finished = finished + self._result(self._results.get())
                self.busy -= 1
        except queue.Empty:
            return []
        return finished

    def _work(self) -> None:
        try:
            with opened_session(self._opening()) as session:
                runner = self._runner(session)
                self._clock = runner.clock
                self._results.put([])
                while (batch := self._batches.get()) is not None:
                    self._results.put(runner.run(batch))
        except Exception as error:  # Vendors' errors have no common type.
            traceback.print_exc()
            self._results.put(error)

    def _result(self, result: list[Finished] | Exception) -> list[Finished]:
        if isinstance(result, Exception):
            raise result
        return result

    def _stop(self) -> None:
        for _ in self._threads:
            self._batches.put(None)
        for thread in self._threads:
            thread.join()
