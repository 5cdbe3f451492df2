"""Workload of suite=switching: the shapes that are built, and the inputs of requests for each shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle

from backends.base import Array, Feeds, Shape
from backends.inputs.request_inputs import REFERENCES, SETS, fitting_shape, read_sets


@dataclass(frozen=True)
class ReferenceCase:
    """Inputs [batch, sequence], and the FP32 output [rows, sequence, hidden] for some of their rows."""

    feeds: Feeds
    reference: Array
    rows: Array


@dataclass(frozen=True)
class Workload:
    """Inputs of all requests, and the shapes that run them.

    Attributes:
        shapes: the shapes that are built and run.
        place: for each shape of requests, the index in `shapes` of the shape that runs it.
        requests: for each shape of requests, their inputs in order.
        beforehand: like `requests`, from other random draws. CUDA graphs are captured for these inputs in advance.
        judged: for each of `shapes`, inputs with an FP32 reference output.
    """

    shapes: tuple[Shape, ...]
    runs_at: tuple[int, ...]
    requests: tuple[tuple[Feeds, ...], ...]
    capture_inputs: tuple[tuple[Feeds, ...], ...]
    reference_cases: tuple[tuple[ReferenceCase, ...], ...]

    @classmethod
    def of(cls, arrays: Mapping[str, Array], requested: Sequence[Shape], built: Sequence[Shape]) -> Workload:
        """Read the inputs and assign them to the built shapes.

        Args:
            arrays: in the format that `prepare_sets` in backends/inputs/request_inputs.py writes.
            requested: the shapes of requests.
            built: the shapes that are built and run.
        """
        place = tuple(fitting_shape(shape, built) for shape in requested)
        sets = [list(read_sets(arrays, index)) for index in range(len(requested))]
        judged: list[list[ReferenceCase]] = [[] for _ in built]
        for index, input_sets in zip(place, sets, strict=True):
            judged[index] += [ReferenceCase(feeds, **outputs) for feeds, outputs in input_sets if outputs]
        return cls(
            tuple(built),
            place,
            tuple(tuple(feeds for feeds, _ in input_sets[:SETS]) for input_sets in sets),
            tuple(tuple(feeds for feeds, _ in input_sets[SETS:]) for input_sets in sets),
            tuple(tuple(cases[:REFERENCES]) for cases in judged),
        )

    @property
    def all_requests(self) -> list[Feeds]:
        """The inputs of all requests, each once."""
        return [feeds for sets in self.requests for feeds in sets]

    def in_turn(self) -> list[Iterator[Feeds]]:
        """Return an endless cycle of inputs for each shape of requests."""
        return [cycle(sets) for sets in self.requests]

    def cycles_by_built_shape(self) -> list[Iterator[Feeds]]:
        """Return for each built shape an endless cycle over the inputs of all requests that it runs."""
        return [
            cycle(
                chain.from_iterable(
                    zip(*(self.requests[i] for i, place in enumerate(self.runs_at) if place == index), strict=True)
                )
            )
            for index in range(len(self.shapes))
        ]
