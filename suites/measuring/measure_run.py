"""The input of every suite's `measure`: a session that can be opened, the inputs, and the effort."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from backends.base import Array, Artifact, BuildSpec, Session, Shape
from backends.compute_share import ComputeShare
from suites.measuring.clock import Effort, time_opening
from suites.suite import Question, Result


def alone(question: Question, prefix: Sequence[str]) -> Result | None:
    """
    Raises:
        RuntimeError: this run is no job of a worker, so no other process can repeat it.
    """
    raise RuntimeError("only a worker can repeat its measurement in a child process")


def undivided(shares: Sequence[float]) -> tuple[ComputeShare, ...]:
    """
    Raises:
        RuntimeError: this run is no job of a worker, so it has no device.
    """
    raise RuntimeError("only a worker can divide its device")


def unlimited(share: float | None) -> AbstractContextManager[ComputeShare]:
    """
    Raises:
        RuntimeError: this run is no job of a worker, so it has no device.
    """
    raise RuntimeError("only a worker can limit its process")


Opening = Iterator[tuple[str, Session | None]]


@dataclass(frozen=True)
class MeasureRun:
    """One measuring process.

    Attributes:
        opening: starts to open a session, see Backend.opening.
        shapes: the shapes that are built and run.
        arrays: the inputs, in the format of the suite's inputs.py.
        progress: called with the current activity.
        artifact: the artifact that is measured; None in tests of other suites.
        tactics: returns the tactics of the artifact, see Backend.tactics.
        backend: name of the backend.
        spec: settings of the session; None in tests of other suites.
        again: runs the measurement with another question in a child process, which may be behind a command. Returns
            its result.
        divide: returns parts of the device, see Backend.divide.
        limit_process: limits this process to a share of the device, see Backend.limit_process.
    """

    opening: Callable[[], Opening]
    shapes: tuple[Shape, ...]
    arrays: Mapping[str, Array]
    effort: Effort
    cuda_graph: bool
    progress: Callable[[str], None]
    artifact: Artifact | None = None
    tactics: Callable[[], tuple[str, ...]] = tuple
    again: Callable[[Question, Sequence[str]], Result | None] = alone
    backend: str = ""
    spec: BuildSpec | None = None
    divide: Callable[[Sequence[float]], tuple[ComputeShare, ...]] = undivided
    limit_process: Callable[[float | None], AbstractContextManager[ComputeShare]] = unlimited

    @contextlib.contextmanager
    def session(self, steps: dict[str, int]) -> Iterator[Session]:
        """Open one session. Write the ns of each step of the opening to `steps`."""
        self.progress("opening")
        session, times = time_opening(self.opening())
        steps |= times
        with session:
            yield session
