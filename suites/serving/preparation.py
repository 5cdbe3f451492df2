"""Preparation of a session for serving: it runs the batches that are likely to occur, and captures their CUDA graphs.

Without it, the first batch of each shape would pay for buffers, compiled kernels or a capture during the measurement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backends.base import Feeds, Session, Shape
from suites.measuring.clock import Clock
from suites.serving.batch_policy import BatchPolicy
from suites.serving.length_groups import WINDOW, similar_requests
from suites.serving.request_texts import RequestTexts

DRAWS = 256
"""Batches that are drawn for each number of requests."""

FULL_DRAWS = 4000
"""Batches that are drawn for the largest number of requests.

Under a high load most batches are full, and no smaller batch has as many tokens. A packed batch with a rare number of
tokens needs a graph too: without one it takes several times as long, and delays all requests behind it."""

GROUPED_DRAWS = 32
"""Batches of requests of similar lengths that are drawn for each number of requests."""

MOST = 512
"""Most different batches that are prepared, the most frequent ones."""

PLAIN_STEPS = 2
"""Steps without a graph before a capture. Libraries choose kernels and allocate memory in the first ones."""


@dataclass(frozen=True)
class Preparation:
    """Batches to prepare.

    Attributes:
        built: the shapes that a batch is padded to; empty to pad it to its longest request.
        graph: whether to capture CUDA graphs.
        seconds: longest time, which counts only if the shapes of batches are not fixed and no graphs are captured.
    """

    texts: RequestTexts
    policy: BatchPolicy
    built: Sequence[Shape]
    graph: bool
    seconds: float

    def prepare(self, session: Session, clock: Clock) -> None:
        """Run each batch, and capture its graph.

        Raises:
            Unsupported: the session cannot capture or keep graphs.
        """
        end = clock.now() + round(self.seconds * 1e9)
        session.keeps_graphs = self.graph
        for feeds in self._feeds():
            prepare(session, feeds, self.graph)
            if clock.now() > end and not self.graph and not self.built:
                break

    def _feeds(self) -> Iterator[Feeds]:
        """Yield one batch of each kind, the most frequent kind first. Batches of one kind use the same graph."""
        counts: Counter[tuple[Shape, int, bool]] = Counter()
        examples: dict[tuple[Shape, int, bool], Sequence[int]] = {}
        for texts in self._batches():
            shape = self.texts.shape(texts, self.built)
            tokens = self.texts.computed(texts, shape, self.policy)
            full = sum(self.texts.lengths[text] for text in texts) == shape.batch * shape.sequence
            counts[shape, tokens, full] += 1
            examples[shape, tokens, full] = texts
        for kind, _ in counts.most_common(MOST):
            yield self.texts.feeds(self.texts.rows(examples[kind]), kind[0])

    def _batches(self) -> Iterator[Sequence[int]]:
        """Yield batches of every number of requests, of random texts; a single request has each length once."""
        texts, lengths = self.texts.fitting(self.policy.longest), self.texts.lengths
        yield from ([text] for text in {lengths[text]: text for text in texts}.values())
        generator = np.random.default_rng(0)
        for size in range(2, self.policy.most_requests + 1):
            draws = FULL_DRAWS if size == self.policy.most_requests else DRAWS
            for drawn in generator.choice(texts, (draws, size)).tolist():
                yield drawn[: self.policy.fitting(lengths[text] for text in drawn)]
            for drawn in generator.choice(texts, (GROUPED_DRAWS if self.policy.grouped else 0, WINDOW * size)).tolist():
                chosen = similar_requests([lengths[text] for text in drawn], replace(self.policy, most_requests=size))
                yield [drawn[place] for place in chosen]


def prepare(session: Session, feeds: Feeds, graph: bool) -> None:
    """Run a batch, and capture its graph if `graph` is true. The first request after it captures the copies too."""
    session.load(feeds)
    if not session.replays:
        for _ in range(PLAIN_STEPS):
            session.step()
        session.wait()
        if graph:
            session.capture()
    session.answer(feeds)
