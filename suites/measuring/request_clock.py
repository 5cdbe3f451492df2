"""Timing of requests. A request is the inputs of one shape and one step over them. suites/measuring/clock.py has the
clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backends.base import Feeds, Session
from suites.measuring import clock
from suites.measuring.clock import Effort, Samples


@dataclass(frozen=True)
class RequestTimes:
    """Host times of one request, in ns.

    Attributes:
        parts: time of each part of the change of shape, by the session's name for the part.
        copy: time of `copy_in` until the copy was done, including device work that the change of shape enqueued.
        enqueue, step: time of the step until its call returned, and until the step was done.
        whole: time of the whole request.
        replayed: whether the step launched a CUDA graph.
    """

    parts: dict[str, int]
    copy: int
    enqueue: int
    step: int
    whole: int
    replayed: bool


def time_request(session: Session, feeds: Feeds) -> RequestTimes:
    """Serve one request on an idle device. A wait after the copy separates its time from that of the step."""
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
    return RequestTimes(parts, copied - begin, returned - copied, done - copied, done - start, session.replays)


def time_request_parts(session: Session, feeds: Feeds, effort: Effort) -> tuple[Samples, ...]:
    """Measure the parts of requests of one shape on an idle device, with a wait after each part.

    The requests of `clock.time_end_to_end` have no waits: the host prepares a part while the device works on the part
    before it. So the sum of the parts is an upper bound of the time of such a request.

    Returns:
        Samples of each part, from the same requests:

        - packing: the change of shape. It arranges the inputs, packs them if the session does so, and finds a graph.
        - copy in: `copy_in`, until the inputs are on the device.
        - enqueue: the step until its call returns. On a CPU, this is the whole step.
        - compute: from then until the step is done.
        - copy out: `fetch`, with the unpacking on the host if the session does so.
    """
    values: list[tuple[int, ...]] = []

    def stretch() -> list[int]:
        times = time_request(session, feeds)
        copied_out = clock.time_once(session.fetch)
        packing, compute = sum(times.parts.values()), times.step - times.enqueue
        values.append((packing, times.copy, times.enqueue, compute, copied_out))
        return [times.whole + copied_out]

    windows = clock.sampled(stretch, effort).windows
    return tuple(Samples(part, windows) for part in zip(*values, strict=True))


def time_on_device(session: Session, before: Feeds, after: Feeds, ahead: int) -> tuple[int, int] | None:
    """Return the device times in ns of the first and the second step after a change of shape.

    The device is kept busy for `ahead` ns while the host enqueues the steps. Otherwise the time between two events
    would include host time. The busy time starts after the change of shape, because the change may wait for the device.

    Returns:
        None if the busy time ended before the steps were enqueued.
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
    ended_early = marks[0].reached()
    marks[2].record()
    session.wait()
    if ended_early:
        return None
    return marks[1].nanoseconds_since(marks[0]), marks[2].nanoseconds_since(marks[1])


def time_requests(session: Session, requests: Sequence[Feeds]) -> tuple[Samples, int]:
    """Serve requests one after another.

    Returns:
        The host time in ns of each request (change of shape, copy of inputs and one step, until it is done), and the
        number of steps that launched a CUDA graph.
    """
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
    """Serve the requests of `circle` repeatedly until their total time is steady or `effort.warm_up_s` has passed.

    Returns:
        Whether the time became steady.
    """
    return clock.until_steady(lambda: [sum(time_requests(session, circle)[0].values)], effort)


@dataclass(frozen=True)
class Budget:
    """Time budget. `left` is true before its end, which is in ns on the clock of suites/measuring/clock.py."""

    end: int

    @classmethod
    def of(cls, seconds: float) -> Budget:
        return cls(clock.now_ns() + round(seconds * 1e9))

    @property
    def left(self) -> bool:
        return clock.now_ns() < self.end
