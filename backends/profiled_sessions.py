"""Several sessions behind one: each runs the shapes of its own optimization profiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from backends.base import Array, Feeds, Session, Shape
from backends.kernel_times import StepProfile
from backends.observed_calls import Around
from backends.profiles import Profile, choose_profile


class ProfiledSessions(Session):
    """Session that passes each batch to the session whose profile contains its shape and has the fewest shapes.

    The sessions share a stream, so a change of session needs no synchronization.

    Args:
        sessions: the sessions, each with its profiles.
        part: name of the part of a shape change that selects the session.
    """

    def __init__(self, sessions: Sequence[tuple[Session, Sequence[Profile]]], part: str) -> None:
        self._sessions = [session for session, _ in sessions]
        self._current = self._sessions[0]
        pairs = [(session, profile) for session, profiles in sessions for profile in profiles]
        self._owners, self._profiles = [session for session, _ in pairs], [profile for _, profile in pairs]
        self._part = part
        self.stream = self._sessions[0].stream

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    @property
    def replays(self) -> bool:
        return self._current.replays

    def _step_without_graph(self) -> None:
        for session in self._sessions:
            session.keeps_graphs = False

    def changing(self, feeds: Feeds) -> Iterator[str]:
        self._choose(feeds)
        yield self._part
        yield from self._current.changing(feeds)

    def copy_in(self, feeds: Feeds) -> None:
        self._current.copy_in(feeds)

    def step(self) -> None:
        self._current.step()

    def wait(self) -> None:
        self._current.wait()

    def fetch(self) -> Array:
        return self._current.fetch()

    def answer(self, feeds: Feeds) -> Array:
        self._choose(feeds)
        return self._current.answer(feeds)

    @contextmanager
    def observed(self, around: Around) -> Iterator[bool]:
        with self._current.observed(around) as observes:
            yield observes

    def python_share(self, steps: int) -> float | None:
        return self._current.python_share(steps)

    def profile(self, steps: int) -> StepProfile:
        return self._current.profile(steps)

    def _choose(self, feeds: Feeds) -> None:
        """Make the session that has the shape of `feeds` the current one."""
        self._current = self._owners[choose_profile(self._profiles, Shape(*feeds["input_ids"].shape))]
        if self.keeps_graphs:
            self._current.keeps_graphs = True

    def capture(self) -> None:
        self._current.capture()
