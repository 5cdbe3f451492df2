"""The only place that reads a clock: timing loops over any session, giving raw samples in nanoseconds.

`time.perf_counter_ns` is the host clock; on Linux it is CLOCK_MONOTONIC, which all processes share, so the
parent can lay its telemetry over a worker's windows. Device times come from the marks of the session's stream.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from backends.base import Feeds, Session

now_ns = time.perf_counter_ns

spent_ns = time.process_time_ns
"""CPU time of this process, in ns, over all its threads."""


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        warm_up_s: cap on warming up; at least a tenth of it is spent.
        seconds: time given to each phase.
        min_samples: wanted of each phase, for up to ten times the seconds.
        max_samples: a phase ends here, whatever the seconds.
        tolerance: two half-windows are steady when their medians differ by at most this share.
        pairs_s: of suite=switching, with and without graphs each: time for all pairs of shapes on the host's clock,
            and as much on the device's.
        replay_s: the same for each trace.
    """

    warm_up_s: float
    seconds: float
    min_samples: int
    max_samples: int
    tolerance: float
    pairs_s: float = 0.0
    replay_s: float = 0.0


@dataclass(frozen=True)
class Samples:
    """Raw samples in ns, and the [start, end, count] of each stretch they were taken in."""

    values: tuple[int, ...]
    windows: tuple[tuple[int, int, int], ...]


def is_steady(samples: list[int], tolerance: float) -> bool:
    """Whether the medians of the two halves of the last 20 or more samples agree within `tolerance`; of 6 or more
    where there are fewer, as with steps of a second."""
    window = samples[-max(20, len(samples) // 2) :]
    half = len(window) // 2
    if half < 3:
        return False
    earlier, later = statistics.median(window[:half]), statistics.median(window[half:])
    return abs(earlier - later) <= tolerance * later


def warm_up(session: Session, effort: Effort) -> bool:
    """Step until steady or until `effort.warm_up_s` has passed; returns whether it became steady."""
    samples: list[int] = []
    start = now_ns()
    chunk = steps_within(session, effort.warm_up_s / 10, 10)
    while True:
        samples.extend(_device_times(session, chunk) if session.stream else [_host_time(session)])
        elapsed = (now_ns() - start) / 1e9
        if elapsed >= effort.warm_up_s / 10 and is_steady(samples, effort.tolerance):
            return True
        if elapsed >= effort.warm_up_s:
            return False


def steps_within(session: Session, seconds: float, most: int) -> int:
    """How many steps fit into `seconds`, by the second of two; at least 1 and at most `most`."""
    _host_time(session)
    return min(most, max(1, int(seconds * 1e9) // max(_host_time(session), 1)))


def time_device(session: Session, effort: Effort) -> Samples:
    """Device time of each step: up to 25 steps enqueued back to back, each between two marks, at a time."""
    chunk = steps_within(session, effort.seconds, 25)

    def stretch() -> list[int]:
        return _device_times(session, chunk)

    return _sample(stretch, effort)


def time_enqueue(session: Session, effort: Effort) -> tuple[Samples, Samples]:
    """Host time of `step` on an idle device, and of `step` with its `wait`."""
    enqueue: list[int] = []

    def stretch() -> list[int]:
        start = now_ns()
        session.step()
        returned = now_ns()
        session.wait()
        done = now_ns()
        enqueue.append(returned - start)
        return [done - start]

    latency = _sample(stretch, effort)
    return Samples(tuple(enqueue), latency.windows), latency


def time_end_to_end(session: Session, feeds: Feeds, effort: Effort) -> Samples:
    """Host time of copying in, one step and copying out."""

    def stretch() -> list[int]:
        start = now_ns()
        session.load(feeds)
        session.step()
        session.wait()
        session.fetch()
        return [now_ns() - start]

    return _sample(stretch, effort)


def time_sustained(session: Session, effort: Effort) -> Samples:
    """Host time a step, up to 50 back to back with no mark between: one sample a chunk. Throughput follows from it."""
    chunk = steps_within(session, effort.seconds / 2, 50)

    def stretch() -> list[int]:
        start = now_ns()
        for _ in range(chunk):
            session.step()
        session.wait()
        return [(now_ns() - start) // chunk]

    samples = _sample(stretch, replace(effort, min_samples=1))
    windows = tuple((start, end, count * chunk) for start, end, count in samples.windows)
    return Samples(samples.values, windows)


def time_once(action: Callable[[], object]) -> int:
    """Host time of one call, in ns."""
    start = now_ns()
    action()
    return now_ns() - start


def time_opening(opening: Iterable[tuple[str, Session | None]]) -> tuple[Session, dict[str, int]]:
    """A session and what each step of its opening took, in ns by name; steps of one name are added up."""
    steps: dict[str, int] = {}
    session, begin = None, now_ns()
    for name, session in opening:  # noqa: B007  the last one is used
        end = now_ns()
        steps[name] = steps.get(name, 0) + end - begin
        begin = end
    assert session is not None
    return session, steps


def time_step(session: Session) -> int:
    """Host time of a step and its `wait`."""
    return _host_time(session)


def _host_time(session: Session) -> int:
    start = now_ns()
    session.step()
    session.wait()
    return now_ns() - start


def _device_times(session: Session, count: int) -> list[int]:
    assert session.stream is not None
    marks = [(session.stream.event(), session.stream.event()) for _ in range(count)]
    for before, after in marks:
        before.record()
        session.step()
        after.record()
    session.wait()
    return [after.nanoseconds_since(before) for before, after in marks]


def _sample(stretch: Callable[[], list[int]], effort: Effort) -> Samples:
    """Call `stretch` until the effort is spent; neighbouring stretches become windows of about 0.1 s."""
    values: list[int] = []
    windows: list[tuple[int, int, int]] = []
    start = opened = now_ns()
    held = 0
    while True:
        taken = stretch()
        values.extend(taken)
        held += len(taken)
        now = now_ns()
        spent = (now - start) / 1e9 / effort.seconds
        done = len(values) >= effort.max_samples or spent >= (1 if len(values) >= effort.min_samples else 10)
        if done or now - opened >= 100_000_000:
            windows.append((opened, now, held))
            opened, held = now, 0
        if done:
            return Samples(tuple(values), tuple(windows))
