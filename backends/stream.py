"""Interface between a clock and the device queue of a session."""

from __future__ import annotations

from typing import Protocol


class Event(Protocol):
    """Event in a stream."""

    def record(self) -> None:
        """Record the event after all work enqueued so far."""

    def reached(self) -> bool:
        """Return whether all work before the event is done."""

    def nanoseconds_since(self, earlier: Event) -> int:
        """Return the device time between two events; both must have been reached."""


class Stream(Protocol):
    """Only device queue of a session. The session enqueues its work on it; a clock records events in it."""

    def event(self) -> Event: ...

    def synchronize(self) -> None:
        """Wait until all work enqueued so far is done."""

    def occupy(self, nanoseconds: int) -> None:
        """Enqueue dummy work that keeps the device busy for about this time, and the host for a much shorter time.

        Work that is enqueued in the meantime then runs without gaps, even if the host enqueues it slowly.
        """

    def free_memory(self) -> int:
        """Return the free memory of the device in bytes."""
