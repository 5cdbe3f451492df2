"""Timing of launches: the library call in a step, the device time without gaps, and the steady state of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from backends.base import Session
from suites.measuring import clock
from suites.measuring.clock import Effort, Samples

MOST_ATTEMPTS = 8
"""Attempts of `time_busy` to keep the device busy long enough, each for twice the time of the one before."""

FEWEST_MEANS = 5
"""Fewest samples of `time_steady_state`, each a mean of several steps."""


def time_library_call(session: Session, effort: Effort) -> tuple[Samples, Samples] | None:
    """Measure the host time of each `step` on an idle device, and the time in it that the call of the library takes.

    A clock is read before and after the call, within the step. None if a step makes several calls.
    """
    inside: list[int] = []

    def around(call: Callable[[], object]) -> object:
        start = clock.now_ns()
        result = call()
        inside.append(clock.now_ns() - start)
        return result

    def stretch() -> list[int]:
        whole = clock.time_once(session.step)
        session.wait()
        return [whole]

    with session.observed(around) as has_one_call:
        if not has_one_call:
            return None
        steps = clock.sampled(stretch, effort)
    return steps, Samples(tuple(inside), steps.windows)


def time_busy(session: Session, effort: Effort) -> Samples | None:
    """Measure the device time of a step whose work is enqueued before the device starts it, so that it never waits.

    The device is kept busy with other work while the host enqueues the step. None if it always ended that work too
    early: the queue of the device is too short for the step.
    """
    ahead = 3 * max(1, clock.time_once(session.step))
    session.wait()
    for _ in range(MOST_ATTEMPTS):
        if _busy_time(session, ahead):
            break
        ahead *= 2
    else:
        return None
    return clock.sampled(lambda: _busy_time(session, ahead), effort)


def _busy_time(session: Session, ahead: int) -> list[int]:
    """Return the device time in ns of a step after other work of `ahead` ns; [] if that ended too early."""
    assert session.stream is not None
    stream = session.stream
    before, after = stream.event(), stream.event()
    stream.occupy(ahead)
    before.record()
    session.step()
    after.record()
    too_early = before.reached()
    session.wait()
    return [] if too_early else [after.nanoseconds_since(before)]


def time_steady_state(session: Session, effort: Effort) -> Samples:
    """Measure the time per step of up to 25 steps back to back, by two events: after the first and the last of them.

    The time between these events has neither the first enqueue of the host nor the end of the device. Each sample is
    the mean of one chunk of steps.
    """
    assert session.stream is not None
    stream, count = session.stream, clock.steps_within(session, effort.seconds / FEWEST_MEANS, 24)

    def stretch() -> list[int]:
        first, last = stream.event(), stream.event()
        session.step()
        first.record()
        for _ in range(count):
            session.step()
        last.record()
        session.wait()
        return [last.nanoseconds_since(first) // count]

    return clock.sampled(stretch, replace(effort, min_samples=FEWEST_MEANS))
