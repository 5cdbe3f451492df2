"""A queue of finished work, from which one thread takes with a time limit."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FinishedQueue(Generic[Item]):
    """Items that threads put, and that one thread takes.

    `queue.SimpleQueue` cannot be used: `get` with a timeout can wait forever in CPython 3.11 and 3.12, if the time is
    over while it takes its lock. On a busy machine this happens after some thousand calls. `queue.Queue` has no such
    fault and takes several times as long.
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._signal = threading.Lock()
        self._signal.acquire()

    def put(self, item: Item) -> None:
        """Add an item, and wake the thread that waits."""
        self._items.append(item)
        with suppress(RuntimeError):  # The lock is free: the signal of an earlier item was not used yet.
            self._signal.release()

    def take(self, seconds: float | None) -> list[Item]:
        """Return all items in their order. If there are none, wait for one.

        Args:
            seconds: longest time to wait; the wait may end earlier without an item. None: wait until there is one.
        """
        if seconds is None:
            while not self._items:
                self._signal.acquire()
        elif not self._items and seconds > 0:
            self._signal.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        return [self._items.popleft() for _ in range(len(self._items))]
