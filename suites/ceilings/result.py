"""Result of suite=ceilings: the times of single operations."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from backends.json_part import Part
from backends.operations import PRODUCT, LeftOut, Operation
from suites.suite import Result

MEMORY = ("device copy", "copy", "triad")
"""Operations whose speed is that of the device's memory."""


@dataclass(frozen=True)
class Ceiling(Part):
    """Times of one operation.

    Attributes:
        samples: times of a step in ns: on a GPU by events, on a CPU and for launches on the host's clock.
        steady: whether the warm-up became steady before its time limit.
    """

    json_flat: ClassVar[Mapping[str, type[Part]]] = {"operation": Operation}

    operation: Operation
    samples: tuple[int, ...]
    steady: bool

    @property
    def figure(self) -> float:
        """Figure of the median time, in the unit of the operation."""
        return self.operation.figure(statistics.median(self.samples))


@dataclass(frozen=True)
class CeilingsResult(Result):
    """All operations.

    Attributes:
        ceilings: operations that ran.
        left_out: operations that the device cannot run, or that failed.
    """

    ceilings: tuple[Ceiling, ...]
    left_out: tuple[LeftOut, ...] = ()

    def fastest_product(self, precision: str) -> float | None:
        """Return the TFLOP/s (for INT8 TOP/s) of the size with the highest rate; None if no product was measured."""
        rates = [
            ceiling.figure
            for ceiling in self.ceilings
            if (ceiling.operation.name, ceiling.operation.precision) == (PRODUCT, precision)
        ]
        return max(rates, default=None)

    @property
    def bandwidth(self) -> float | None:
        """GB/s of the fastest copy within the memory of the device; None if none was measured."""
        rates = [ceiling.figure for ceiling in self.ceilings if ceiling.operation.name in MEMORY]
        return max(rates, default=None)


RESULT = CeilingsResult
