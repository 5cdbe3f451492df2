"""The interface of a session, a model that is ready to run. `backends.base` exports it.

This module needs only CPython 3.10 and numpy.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any, final

from backends.graph_store import GraphStore
from backends.interface_values import Array, Feeds, Unsupported
from backends.kernel_times import StepProfile
from backends.observed_calls import Around
from backends.stream import Stream


class Session(abc.ABC):
    """Model that is ready to run, at one shape after another.

    `load` prepares the session for a shape and copies the inputs in; `set_shape` and `copy_in` are its two parts.
    `set_shape` runs `changing` to its end; a session implements only `changing`.
    `step` enqueues one forward pass on the inputs that were loaded last. `wait` returns when all enqueued work is done.
    `fetch` waits for the step and copies its output to host memory. `answer` does all of this for one request.
    After `capture`, each step replays one CUDA graph until the shape changes.
    """

    stream: Stream | None = None
    """None on a CPU, where `step` returns only when the work is done."""

    @cached_property
    def graphs(self) -> GraphStore[Any]:
        """Graphs of the session, which the session itself selects and adds."""
        return GraphStore()

    @property
    def replays(self) -> bool:
        """Whether the next step launches a graph."""
        return self.graphs.current is not None

    @property
    def keeps_graphs(self) -> bool:
        """Whether the session keeps each graph and replays it when inputs of the same sizes return.

        After it is set to False, steps run without a graph until the next capture.
        """
        return self.graphs.keep

    @keeps_graphs.setter
    def keeps_graphs(self, keep: bool) -> None:
        self.graphs.keep = keep
        if not keep:
            self._step_without_graph()

    def _step_without_graph(self) -> None:
        """Run the next steps without a graph."""
        self.graphs.drop()

    def load(self, feeds: Feeds) -> None:
        """Prepare the session for the shape of `feeds` and copy them in."""
        self.set_shape(feeds)
        self.copy_in(feeds)

    @abc.abstractmethod
    def changing(self, feeds: Feeds) -> Iterator[str]:
        """Prepare the session for arrays of these sizes, in parts; yield the name of each part when it is done.

        Do nothing if the sizes are unchanged. The session is prepared when the iterator has ended.
        """

    @final
    def set_shape(self, feeds: Feeds) -> None:
        """Run `changing` to its end."""
        for _ in self.changing(feeds):
            pass

    @abc.abstractmethod
    def copy_in(self, feeds: Feeds) -> None:
        """Enqueue the copy of `feeds` to the device. The last call of `set_shape` must have had the same sizes."""

    @abc.abstractmethod
    def step(self) -> None: ...

    @abc.abstractmethod
    def wait(self) -> None: ...

    @abc.abstractmethod
    def fetch(self) -> Array:
        """Return the output of the last step (see Output in backends/model_output.py); bfloat16 becomes float32.

        It is in memory of the session, which the next step or `fetch` may overwrite. Values of padding have no meaning.
        """

    def answer(self, feeds: Feeds) -> Array:
        """Serve a request: token ids in host memory in, answer in host memory out; see `fetch`.

        A session overrides it if it serves a whole request faster than `load`, `step` and `fetch`.
        """
        return self._answer_in_parts(feeds)

    def _answer_in_parts(self, feeds: Feeds) -> Array:
        self.load(feeds)
        self.step()
        return self.fetch()

    def capture(self) -> None:
        """Record one step as a CUDA graph. Call it after a step without a graph at this shape.

        Raises:
            Unsupported: a session of this backend cannot capture a graph.
        """
        raise Unsupported("CUDA graphs need a GPU and a backend that can capture them")

    def profile(self, steps: int) -> StepProfile:
        """Run steps without a graph under the profiler of the library, and return the median times.

        Call it once, after steps at this shape, in a session that was opened with `BuildSpec.profiled`. The profiler
        does not slow down the steps after it.

        Raises:
            Unsupported: the library has no profiler of kernels.
        """
        raise Unsupported("this backend has no profiler of kernels; on a GPU use profile=nsys or profile=ncu")

    @contextlib.contextmanager
    def observed(self, around: Around) -> Iterator[bool]:
        """In this context, make the one call of the library in each `step` through `around`.

        It gives False, and changes nothing, if a step makes several calls, as a model of PyTorch does.
        """
        yield False

    def python_share(self, steps: int) -> float | None:
        """Run steps without a graph under the profiler of the library, for a step that makes several calls.

        Returns:
            Median share of the host time of `step` in which no operator and no CUDA function runs. The profiler makes
            both parts slower. None if the library has no such profiler.
        """
        return None

    def close(self) -> None:  # noqa: B027  most sessions are freed with their process
        """Free all memory of the session. Raise nothing."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
