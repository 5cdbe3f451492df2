"""The queue in front of a session: requests wait in order of arrival and are taken in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from suites.serving.arrivals import Arrived, Load


@dataclass(frozen=True)
class BatchPolicy:
    """Rules of batches.

    Attributes:
        most_requests: most requests of a batch; 1 serves one request at a time.
        most_tokens: most tokens of a batch, 0 for no limit: with its padding, or without if it is packed. A longer
            request is alone.
        wait_ns: time after the arrival of its first request at which an incomplete batch starts.
        queue: most waiting requests.
        longest: most tokens of a request.
        pads_to_built: whether a batch is padded to a built shape instead of to its longest request.
        packed: whether the backend removes padding.
        multiple: the number of packed tokens is rounded up to a multiple of this.
    """

    most_requests: int = 1
    most_tokens: int = 0
    wait_ns: int = 0
    queue: int = 1000
    longest: int = 512
    pads_to_built: bool = False
    packed: bool = False
    multiple: int = 1

    def fitting(self, lengths: Iterable[int]) -> int:
        """Return how many of the first requests fit into one batch; at least 1 if there is one.

        Args:
            lengths: number of tokens of each request, in order.
        """
        number = longest = total = 0
        for length in lengths:
            longest, total = max(longest, length), total + length
            tokens = total if self.packed else (number + 1) * longest
            if number == self.most_requests or (number and self.most_tokens and tokens > self.most_tokens):
                break
            number += 1
        return number


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
        size = self._next_size()
        complete = size == self._policy.most_requests or size < len(self._waiting)
        if not complete and now < self._deadline():
            return []
        return [self._waiting.popleft() for _ in range(size)]

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

    def _next_size(self) -> int:
        """Return the number of waiting requests that fit into one batch, at least 1."""
        if not self._policy.most_tokens:
            return min(self._policy.most_requests, len(self._waiting))
        return self._policy.fitting(self._lengths[request.text] for request in self._waiting)
