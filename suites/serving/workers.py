"""Workers that run batches, and the simplest of them: the session of the server's own thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backends.base import Session, Shape
from suites.measuring.clock import Clock
from suites.schema.refusals import first_line
from suites.serving.arrivals import Arrived
from suites.serving.batch_policy import BatchPolicy
from suites.serving.request_texts import RequestTexts


@dataclass(frozen=True)
class Finished:
    """A batch that was run. Times are in ns.

    Attributes:
        begin, ready, end: start, end of the arrangement of the arrays, and answer.
        tokenizing: time of the tokenizer, after `begin`.
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
    tokenizing: int = 0


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
        rows = self.texts.tokenized(texts) if self.policy.tokenizes else self.texts.rows(texts)
        tokenizing = self.clock.now() - begin if self.policy.tokenizes else 0
        shape = self.texts.shape(texts, self.padded_to)
        feeds = self.texts.feeds(rows, shape)
        computed = self.texts.computed(texts, shape, self.policy)
        ready = self.clock.now()
        try:
            self.session.answer(feeds)
        except Exception as error:  # Vendors' errors have no common type.
            if len(batch) > 1:
                return [finished for request in batch for finished in self.run([request])]
            return [Finished(batch, begin, ready, self.clock.now(), computed, first_line(error), False, tokenizing)]
        return [Finished(batch, begin, ready, self.clock.now(), computed, "", self.session.replays, tokenizing)]


class Runner(Protocol):
    """Runs batches, one after another."""

    @property
    def clock(self) -> Clock: ...

    def run(self, batch: Sequence[Arrived]) -> list[Finished]:
        """Run a batch. Return it, or, after an error, its requests one by one."""
        ...


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

    runner: Runner
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
