"""The queue in front of a session: requests wait in order of arrival and are taken in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from suites.serving.arrivals import Arrived, Load
from suites.serving.batch_policy import BatchPolicy
from suites.serving.length_groups import WINDOW, similar_requests


class RequestQueue:
    """Waiting requests of one load. Each method is called with the current time in ns."""

    def __init__(self, load: Load, policy: BatchPolicy, lengths: Sequence[int]) -> None:
        """
        Args:
            lengths: number of tokens of each text.
        """
        self._load, self._policy, self._lengths = load, policy, lengths
        self._waiting: deque[Arrived] = deque()
        self.sent = self.rejected = self.too_long = 0

    def admit(self, now: int) -> None:
        """Add the requests that have arrived. Count those that are too long, or find a full queue, as failed."""
        while arrived := self._load.due(now):
            failed = 0
            self.sent += len(arrived)
            for request in arrived:
                if self._lengths[request.text] > self._policy.longest:
                    self.too_long += 1
                    failed += 1
                elif len(self._waiting) >= self._policy.queue:
                    self.rejected += 1
                    failed += 1
                else:
                    self._waiting.append(request)
            if failed:
                # A client that gets an error at once sends its next request, which has arrived too.
                self._load.completed(failed, now)

    def take(self, now: int) -> list[Arrived]:
        """Return the next batch; empty if no request waits, or if the batch should wait for more requests."""
        if not self._waiting:
            return []
        chosen = self._similar() if self._policy.grouped else range(self._next_size())
        complete = len(chosen) == self._policy.most_requests or len(chosen) < len(self._waiting)
        if not complete and now < self._deadline():
            return []
        return self._remove(chosen) if self._policy.grouped else [self._waiting.popleft() for _ in chosen]

    def next_arrival(self) -> int | None:
        """Return the time of the next arrival in ns; None if none comes before another answer."""
        return self._load.next_arrival()

    def next_event(self) -> int | None:
        """Return the time in ns at which `take` may return a batch; None if no request waits or will arrive."""
        arrival = self._load.next_arrival()
        if not self._waiting:
            return arrival
        # The batch waits also if no other request comes: a server does not know that.
        return self._deadline() if arrival is None else min(arrival, self._deadline())

    def _deadline(self) -> int:
        return self._waiting[0].at + self._policy.wait_ns

    def _similar(self) -> Sequence[int]:
        window = islice(self._waiting, WINDOW * self._policy.most_requests)
        return similar_requests([self._lengths[request.text] for request in window], self._policy)

    def _remove(self, chosen: Sequence[int]) -> list[Arrived]:
        """Remove and return the waiting requests at these places, in their order."""
        oldest = [self._waiting.popleft() for _ in range(max(chosen) + 1)]
        places = set(chosen)
        self._waiting.extendleft(oldest[place] for place in range(len(oldest) - 1, -1, -1) if place not in places)
        return [oldest[place] for place in chosen]

    def _next_size(self) -> int:
        """Return the number of waiting requests that fit into one batch, at least 1."""
        if not self._policy.most_tokens:
            return min(self._policy.most_requests, len(self._waiting))
        return self._policy.fitting(self._lengths[request.text] for request in self._waiting)
