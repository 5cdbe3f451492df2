"""Timing requests: inputs of some shape that come in, and one step over them. suites/clock.py has the clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backends.base import Feeds, Session
from suites import clock
from suites.clock import Effort, Samples


@dataclass(frozen=True)
class Served:
    """What one request took, in ns of the host's time.

    Attributes:
        parts: of making ready for the shape, by the names that the session gives them.
        copy: of `copy_in` until it was done, and of what making ready left to be done.
        enqueue, step: of the step until its call returned, and until it was done.
        whole: of all of it.
        replayed: whether the step launched a graph.
    """

    parts: dict[str, int]
    copy: int
    enqueue: int
    step: int
    whole: int
    replayed: bool


def time_request(session: Session, feeds: Feeds) -> Served:
    """Serve one request on an idle device, waiting after the copy so that it is apart from the step."""
    parts: dict[str, int] = {}
    start = begin = clock.now_ns()
    for name in session.changing(feeds):
        end = clock.now_ns()
        parts[name] = parts.get(name, 0) + end - begin
        begin = end
    session.copy_in(feeds)
    session.wait()
    copied = clock.now_ns()
    session.step()
    returned = clock.now_ns()
    session.wait()
    done = clock.now_ns()
    return Served(parts, copied - begin, returned - copied, done - copied, done - start, session.replays)


def time_on_device(session: Session, before: Feeds, after: Feeds, ahead: int) -> tuple[int, int] | None:
    """Device time of the first and of the second step after a change of shape, in ns.

    The device is kept busy for `ahead` ns while the host enqueues them: or what lies between two marks would be the
    host's time. That comes after the change, which may wait for the device. None where it was over too early.
    """
    assert session.stream is not None
    session.load(before)
    session.wait()
    marks = [session.stream.event() for _ in range(3)]
    session.step()
    session.load(after)
    session.stream.occupy(ahead)
    marks[0].record()
    session.step()
    marks[1].record()
    session.step()
    overtaken = marks[0].reached()
    marks[2].record()
    session.wait()
    if overtaken:
        return None
    return marks[1].nanoseconds_since(marks[0]), marks[2].nanoseconds_since(marks[1])


def time_requests(session: Session, requests: Sequence[Feeds]) -> tuple[Samples, int]:
    """Host time of each request, one after another: shape, inputs and one step, until it is done; and how many of the
    steps launched a graph."""
    values, replayed, begin = [], 0, clock.now_ns()
    start = begin
    for feeds in requests:
        session.load(feeds)
        replayed += session.replays
        session.step()
        session.wait()
        end = clock.now_ns()
        values.append(end - start)
        start = end
    return Samples(tuple(values), ((begin, start, len(values)),)), replayed


def warm_up(session: Session, circle: Sequence[Feeds], effort: Effort) -> bool:
    """Serve `circle` again and again until that takes as long as before, or until `effort.warm_up_s` has passed;
    returns whether it became steady."""
    samples: list[int] = []
    start = clock.now_ns()
    while True:
        taken, _ = time_requests(session, circle)
        samples.append(sum(taken.values))
        elapsed = (clock.now_ns() - start) / 1e9
        if elapsed >= effort.warm_up_s / 10 and clock.is_steady(samples, effort.tolerance):
            return True
        if elapsed >= effort.warm_up_s:
            return False


@dataclass(frozen=True)
class Budget:
    """Until when something may be begun."""

    end: int

    @classmethod
    def of(cls, seconds: float) -> Budget:
        return cls(clock.now_ns() + round(seconds * 1e9))

    @property
    def left(self) -> bool:
        return clock.now_ns() < self.end
