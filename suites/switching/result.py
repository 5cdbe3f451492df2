"""Result of suite=switching: samples of openings, first requests, changes of shape, captures and replays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from backends.json_part import Part, optional
from suites.suite import FirstUseCosts, Result

Size = tuple[int, int]
"""Batch and sequence."""

Threes = tuple[tuple[int, ...], ...]
"""[visits][3] times in ns, of three requests of a shape in a row."""


@dataclass(frozen=True)
class Opening(Part):
    """Opening of a session.

    Attributes:
        ns: time of each step.
        of: purpose of the session.
        bytes: device memory of each step; empty if it was not read.
    """

    ns: Mapping[str, int]
    of: str = ""
    bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class VisitSamples(Part):
    """Three requests of a shape in a row, for each visit of the shape.

    Attributes:
        parts: [visits][3] ns by name, of the calls that prepare the shape.
        copy, enqueue, step, whole: [visits][3] ns.
        replayed: [visits][3] whether the request launched a CUDA graph.
    """

    parts: Mapping[str, Threes]
    copy: Threes
    enqueue: Threes
    step: Threes
    whole: Threes
    replayed: tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class FirstRequests(Part):
    """The first three requests of a shape.

    Attributes:
        where: "process", "context" or "start": new for these requests.
    """

    shape: Size
    where: str
    samples: VisitSamples


@dataclass(frozen=True)
class ColdStart(FirstUseCosts):
    """Cold start of one extra process.

    Attributes:
        opening: ns by step of the opening.
        first_requests: of every shape, in the order of the run ("met" in JSON).
    """

    json_names: ClassVar[Mapping[str, str]] = {"first_requests": "met"}

    opening: Mapping[str, int]
    first_requests: tuple[FirstRequests, ...]


@dataclass(frozen=True)
class Transition(Part):
    """Visits of the shape `after` that follow a request of the shape `before` ("to" and "from" in JSON).

    Attributes:
        earlier: for each visit, the shape that ran before the shape `before`.
    """

    json_names: ClassVar[Mapping[str, str]] = {"before": "from", "after": "to"}

    before: Size
    after: Size
    cuda_graph: bool
    samples: VisitSamples
    earlier: tuple[Size, ...]


@dataclass(frozen=True)
class DeviceTimes(Part):
    """Device time of the steps after a change of shape, from `before` to `after` ("from" and "to" in JSON).

    Attributes:
        first, again: ns of the first and the second step, one sample for each visit.
        overtaken: number of visits without a sample.
    """

    json_names: ClassVar[Mapping[str, str]] = {"before": "from", "after": "to"}

    before: Size
    after: Size
    cuda_graph: bool
    first: tuple[int, ...]
    again: tuple[int, ...]
    overtaken: int = 0


@dataclass(frozen=True)
class Captures(Part):
    """Captures of the CUDA graph of a shape.

    Attributes:
        capture, launch, again: ns of the captures, and of the first and second launch after each.
        bytes: device memory of each capture.
    """

    shape: Size
    capture: tuple[int, ...]
    launch: tuple[int, ...]
    again: tuple[int, ...]
    bytes: tuple[int, ...]


@dataclass(frozen=True)
class ReplayCounts(Part):
    """Counts of a replayed trace. Its samples are the measurement with the same trace.

    Attributes:
        name: of the trace.
        blocks: requests of each block that was served.
        switches: requests whose shape differs from the shape before.
        replayed: requests that launched a CUDA graph.
        requests: of the whole trace ("asked" in JSON).
    """

    json_names: ClassVar[Mapping[str, str]] = {"requests": "asked"}

    name: str
    cuda_graph: bool
    blocks: tuple[int, ...]
    switches: int
    replayed: int
    requests: int


@dataclass(frozen=True)
class Parity(Part):
    """Comparison of outputs after changes of shape with those of new contexts.

    Attributes:
        transitions: number of compared outputs.
        unequal: how many of them are not bit-identical.
        difference: the largest one as a share of the largest value; None if it is not known.
        replayed: how many transitions launched a CUDA graph.
        where: the two shapes of the largest difference.
    """

    cuda_graph: bool
    transitions: int
    unequal: int
    difference: float | None
    replayed: int = 0
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class SwitchingResult(Result):
    """All samples of suite=switching.

    Attributes:
        openings: of the sessions of the measuring process, in order.
        cold: first requests of each shape in the process, and in the context of plain steps.
        transitions, device: by ordered pair of shapes, on the clocks of the host and of the device.
        starts: cold starts of the extra processes.
    """

    openings: tuple[Opening, ...]
    cold: tuple[FirstRequests, ...] = ()
    transitions: tuple[Transition, ...] = ()
    device: tuple[DeviceTimes, ...] = ()
    captures: tuple[Captures, ...] = ()
    replays: tuple[ReplayCounts, ...] = ()
    parity: tuple[Parity, ...] = ()
    starts: tuple[ColdStart, ...] = optional(())


RESULT = SwitchingResult
