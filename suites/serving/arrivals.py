"""Loads of a server: requests that arrive by a schedule (open loop), or from clients that wait for answers (closed).

A load has no thread of its own. The server asks for the requests that have arrived whenever it can take one. No request
leaves the queue while a batch runs, so the queue is the same as if each request had been added at its arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from backends.base import Array

MOST_ARRIVALS = 1_000_000
"""Most requests of one load."""


class Arrived(NamedTuple):
    """A request: its scheduled arrival in ns, and the number of its text."""

    at: int
    text: int


class Load(Protocol):
    """Requests of one measurement."""

    def start(self, now: int) -> None:
        """Begin at the time `now` in ns."""
        ...

    def due(self, now: int) -> Sequence[Arrived]:
        """Return requests that have arrived and were not returned before, in order."""
        ...

    def next_arrival(self) -> int | None:
        """Return the time of the next arrival in ns; None if none comes before another answer."""
        ...

    def completed(self, count: int, now: int) -> None:
        """Note that `count` requests were answered, or failed, at the time `now`."""
        ...


def poisson(rate: float, seconds: float, seed: Sequence[int]) -> Array:
    """Return the times of a Poisson process, sorted int64 [requests] in ns.

    Args:
        rate: mean number of requests per second.
        seconds: length of the schedule.
    """
    generator = np.random.default_rng(seed)
    # The number of requests is that of a Poisson distribution; given it, the times are uniform and independent.
    count = generator.poisson(rate * seconds)
    return np.sort(generator.uniform(0, seconds * 1e9, count)).astype(np.int64)


def bursts(rate: float, seconds: float, size: int, seed: Sequence[int]) -> Array:
    """Return times as `poisson` does, at each of which `size` requests arrive at once. `rate` counts requests."""
    return np.repeat(poisson(rate / size, seconds, seed), size)


class OpenLoop:
    """Requests that arrive at fixed times, whether or not the server keeps up."""

    def __init__(self, times: Array, texts: Array) -> None:
        """
        Args:
            times: int64 [requests], sorted, in ns after the start.
            texts: int [requests], the number of each request's text.
        """
        self._times: list[int] = times.tolist()
        self._texts: list[int] = texts.tolist()
        self._next, self._begin = 0, 0

    def start(self, now: int) -> None:
        self._begin = now

    def due(self, now: int) -> Sequence[Arrived]:
        first, since = self._next, now - self._begin
        while self._next < len(self._times) and self._times[self._next] <= since:
            self._next += 1
        return [Arrived(self._begin + self._times[i], self._texts[i]) for i in range(first, self._next)]

    def next_arrival(self) -> int | None:
        return self._begin + self._times[self._next] if self._next < len(self._times) else None

    def completed(self, count: int, now: int) -> None:
        pass


class ClosedLoop:
    """Clients that each send the next request when the last one is answered, until the time is over."""

    def __init__(self, clients: int, seconds: float, texts: Array) -> None:
        """
        Args:
            texts: int [any], numbers of the texts of requests, which are used in turn.
        """
        self._clients, self._length = clients, round(seconds * 1e9)
        self._texts: list[int] = texts.tolist()
        self._sent, self._end = 0, 0
        self._arrived: list[Arrived] = []

    def start(self, now: int) -> None:
        self._end = now + self._length
        self._send(self._clients, now)

    def due(self, now: int) -> Sequence[Arrived]:
        arrived, self._arrived = self._arrived, []
        return arrived

    def next_arrival(self) -> int | None:
        return self._arrived[0].at if self._arrived else None

    def completed(self, count: int, now: int) -> None:
        if now < self._end:
            self._send(count, now)

    def _send(self, count: int, now: int) -> None:
        for _ in range(count):
            self._arrived.append(Arrived(now, self._texts[self._sent % len(self._texts)]))
            self._sent += 1
