"""What a clock needs of the queue of device work that a session uses."""

from __future__ import annotations

from typing import Protocol


class Event(Protocol):
    """A mark in a stream's order of work."""

    def record(self) -> None:
        """Put the mark after all work enqueued so far."""

    def reached(self) -> bool:
        """Whether all work before the mark is done."""

    def nanoseconds_since(self, earlier: Event) -> int:
        """Device time between two marks that have both been reached."""


class Stream(Protocol):
    """The one queue of device work that a session uses; sessions enqueue on it, clocks put marks in it."""

    def event(self) -> Event: ...

    def synchronize(self) -> None:
        """Return when all work enqueued so far is done."""

    def occupy(self, nanoseconds: int) -> None:
        """Enqueue work of no use that keeps the device busy for about so long, and the host for far less: what is
        enqueued meanwhile then runs without a gap, however slowly it was enqueued."""

    def free_memory(self) -> int:
        """Bytes of the device that nobody holds."""
