"""Timing loops over a session. They return raw samples in nanoseconds. No other module reads a clock.

`time.perf_counter_ns` is the host clock. On Linux it is CLOCK_MONOTONIC, which all processes share. So the parent can
assign its telemetry to a worker's windows. Device times come from events on the session's stream.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from backends.base import Feeds, Session, Unsupported

now_ns = time.perf_counter_ns

cpu_time_ns = time.process_time_ns
"""CPU time of this process, in ns, over all its threads."""

SPIN_NS = 100_000
"""Last part of a wait, in which the clock is read all the time, because a sleep ends up to this much too late."""


class Clock(Protocol):
    """Clock of a server. Tests run the same server in simulated time."""

    def now(self) -> int:
        """Return the time in ns since a fixed point."""
        ...

    def wait_until(self, at: int) -> None:
        """Return when the time is `at` or later."""
        ...


class HostClock:
    """The clock of the host."""

    def now(self) -> int:
        return now_ns()

    def wait_until(self, at: int) -> None:
        while (left := at - now_ns()) > 0:
            if left > SPIN_NS:
                time.sleep((left - SPIN_NS) / 1e9)


@dataclass(frozen=True)
class Effort:
    """Duration and sample limits of a measurement.

    Attributes:
        warm_up_s: longest warm-up in seconds; at least a tenth of it is used.
        seconds: duration of each phase.
        min_samples: fewest samples of each phase. A phase takes up to ten times `seconds` to reach them.
        max_samples: most samples of each phase. A phase ends there, also before `seconds`.
        tolerance: the warm-up is steady when the medians of two half-windows differ by at most this share.
        pairs_s: for suite=switching: seconds for all pairs of shapes on the host's clock, and as many on the device's
            clock, each with and without CUDA graphs.
        replay_s: for suite=switching: seconds for each trace, with and without CUDA graphs.
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
    """Raw samples in ns, and the windows that they were taken in: (start in ns, end in ns, number of steps)."""

    values: tuple[int, ...]
    windows: tuple[tuple[int, int, int], ...]


def is_steady(samples: list[int], tolerance: float) -> bool:
    """Return whether the two halves of the latest samples have medians that differ by at most `tolerance`.

    The latest half of the samples counts, and at least 20 samples. If there are fewer than 20, as with steps that take
    a second, 6 are enough.
    """
    window = samples[-max(20, len(samples) // 2) :]
    half = len(window) // 2
    if half < 3:
        return False
    earlier, later = statistics.median(window[:half]), statistics.median(window[half:])
    return abs(earlier - later) <= tolerance * later


def warm_up(session: Session, effort: Effort) -> bool:
    """Step until the times are steady or `effort.warm_up_s` has passed. Return whether they became steady."""
    chunk = steps_within(session, effort.warm_up_s / 10, 10)
    return until_steady(lambda: _device_times(session, chunk) if session.stream else [_host_time(session)], effort)


def until_steady(stretch: Callable[[], list[int]], effort: Effort) -> bool:
    """Repeat `stretch`, which returns samples in ns, as `warm_up` does. Return whether the samples became steady."""
    samples: list[int] = []
    start = now_ns()
    while True:
        samples.extend(stretch())
        elapsed = (now_ns() - start) / 1e9
        if elapsed >= effort.warm_up_s / 10 and is_steady(samples, effort.tolerance):
            return True
        if elapsed >= effort.warm_up_s:
            return False


def steps_within(session: Session, seconds: float, most: int) -> int:
    """Run two steps and return how many steps like the second fit into `seconds`; at least 1 and at most `most`."""
    _host_time(session)
    return min(most, max(1, int(seconds * 1e9) // max(_host_time(session), 1)))


def time_device(session: Session, effort: Effort) -> Samples:
    """Measure the device time of each step. Up to 25 steps are enqueued back to back, each between two events."""
    chunk = steps_within(session, effort.seconds, 25)

    def stretch() -> list[int]:
        return _device_times(session, chunk)

    return sampled(stretch, effort)


def time_enqueue(session: Session, effort: Effort) -> tuple[Samples, Samples]:
    """Measure the host time of `step` on an idle device, and of `step` with its `wait`."""
    enqueue: list[int] = []

    def stretch() -> list[int]:
        start = now_ns()
        session.step()
        returned = now_ns()
        session.wait()
        done = now_ns()
        enqueue.append(returned - start)
        return [done - start]

    latency = sampled(stretch, effort)
    return Samples(tuple(enqueue), latency.windows), latency


def time_steps(session: Session, effort: Effort) -> tuple[tuple[int, ...], bool]:
    """Return times of one step in ns after a warm-up, by events on a GPU, and whether they were steady."""
    steady = warm_up(session, effort)
    if session.stream is None:
        return time_enqueue(session, effort)[1].values, steady
    return time_device(session, effort).values, steady


def captured(session: Session) -> bool:
    """Record a CUDA graph, if the session can. Return whether it has one."""
    try:
        session.capture()
    except Unsupported:
        return False
    return True


def time_end_to_end(session: Session, feeds: Feeds, effort: Effort) -> Samples:
    """Measure the host time of a request: token ids in host memory in, answer in host memory out, without waits."""

    def stretch() -> list[int]:
        start = now_ns()
        session.answer(feeds)
        return [now_ns() - start]

    return sampled(stretch, effort)


def time_calls(action: Callable[[], object], effort: Effort) -> Samples:
    """Measure the host time of repeated calls, after calls that warm it up."""

    def stretch() -> list[int]:
        return [time_once(action)]

    until_steady(stretch, effort)
    return sampled(stretch, effort)


def time_sustained(session: Session, effort: Effort) -> Samples:
    """Measure the host time per step of up to 50 steps back to back, without events between them.

    Each sample is the mean of one chunk of steps. Throughput is computed from it.
    """
    chunk = steps_within(session, effort.seconds / 2, 50)

    def stretch() -> list[int]:
        start = now_ns()
        for _ in range(chunk):
            session.step()
        session.wait()
        return [(now_ns() - start) // chunk]

    samples = sampled(stretch, replace(effort, min_samples=1))
    windows = tuple((start, end, count * chunk) for start, end, count in samples.windows)
    return Samples(samples.values, windows)


def time_once(action: Callable[[], object]) -> int:
    """Measure the host time of one call, in ns."""
    start = now_ns()
    action()
    return now_ns() - start


def time_opening(opening: Iterable[tuple[str, Session | None]]) -> tuple[Session, dict[str, int]]:
    """Return a session and the host time in ns of each step of its opening, by name. Steps of one name are summed."""
    steps: dict[str, int] = {}
    session, begin = None, now_ns()
    for name, session in opening:  # noqa: B007  the last one is used
        end = now_ns()
        steps[name] = steps.get(name, 0) + end - begin
        begin = end
    assert session is not None
    return session, steps


def time_step(session: Session) -> int:
    """Measure the host time of a step and its `wait`, in ns."""
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


def sampled(stretch: Callable[[], list[int]], effort: Effort) -> Samples:
    """Call `stretch` until the limits of `effort` are reached. Consecutive calls form windows of about 0.1 s."""
    values: list[int] = []
    windows: list[tuple[int, int, int]] = []
    start = opened = now_ns()
    window_steps = 0
    while True:
        samples = stretch()
        values.extend(samples)
        window_steps += len(samples)
        now = now_ns()
        spent = (now - start) / 1e9 / effort.seconds
        done = len(values) >= effort.max_samples or spent >= (1 if len(values) >= effort.min_samples else 10)
        if done or now - opened >= 100_000_000:
            windows.append((opened, now, window_steps))
            opened, window_steps = now, 0
        if done:
            return Samples(tuple(values), tuple(windows))
