"""What suite=switching runs: the shapes that are held, and inputs for each in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle

from backends.base import Array, Feeds, Shape
from backends.input_sets import REFERENCES, SETS, read_sets, smallest


@dataclass(frozen=True)
class Judged:
    """Inputs [batch, sequence] and the FP32 output [rows, sequence, hidden] of some rows of them."""

    feeds: Feeds
    reference: Array
    rows: Array


@dataclass(frozen=True)
class Workload:
    """
    Attributes:
        shapes: those that are built and run.
        place: for each shape that requests have, by index, the one of `shapes` that runs it.
        requests: for each shape that requests have, what they bring in turn.
        beforehand: the same of other draws: what graphs are kept for before requests come.
        judged: for each of `shapes`, inputs whose outputs are known.
    """

    shapes: tuple[Shape, ...]
    place: tuple[int, ...]
    requests: tuple[tuple[Feeds, ...], ...]
    beforehand: tuple[tuple[Feeds, ...], ...]
    judged: tuple[tuple[Judged, ...], ...]

    @classmethod
    def of(cls, arrays: Mapping[str, Array], asked: Sequence[Shape], held: Sequence[Shape]) -> Workload:
        """
        Args:
            arrays: as backends/input_sets.py's `prepare_sets` writes them.
        """
        place = tuple(smallest(shape, held) for shape in asked)
        sets = [list(read_sets(arrays, index)) for index in range(len(asked))]
        judged: list[list[Judged]] = [[] for _ in held]
        for index, known in zip(place, sets, strict=True):
            judged[index] += [Judged(feeds, **outputs) for feeds, outputs in known if outputs]
        return cls(
            tuple(held),
            place,
            tuple(tuple(feeds for feeds, _ in known[:SETS]) for known in sets),
            tuple(tuple(feeds for feeds, _ in known[SETS:]) for known in sets),
            tuple(tuple(known[:REFERENCES]) for known in judged),
        )

    @property
    def everything(self) -> list[Feeds]:
        """The inputs of all requests, once each."""
        return [feeds for sets in self.requests for feeds in sets]

    def in_turn(self) -> list[Iterator[Feeds]]:
        """By shape of requests, their inputs in turn without end."""
        return [cycle(sets) for sets in self.requests]

    def in_turn_at(self) -> list[Iterator[Feeds]]:
        """By shape that is run, the inputs of all requests that it runs, in turn without end."""
        return [
            cycle(
                chain.from_iterable(zip(*(self.requests[i] for i, p in enumerate(self.place) if p == at), strict=True))
            )
            for at in range(len(self.shapes))
        ]
