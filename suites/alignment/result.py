"""Result of suite=alignment: times of a step at sizes around multiples of 8, 16, 32 and 64."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from backends.json_part import Part, optional
from suites.suite import Result

SEQUENCE, BATCH = "sequence", "batch"
"""Axes of a sweep: sequence lengths at one batch size, or batch sizes at one sequence length."""


@dataclass(frozen=True)
class TimedShape(Part):
    """Times of one step at one shape.

    Attributes:
        padded: whether the last token of each sequence is padding, so that the model gets a mask with padding.
        samples: times in ns in the first pass: on a GPU by events, with a CUDA graph if there is one; on a CPU host
            time.
        again: times in the second pass.
        cuda_graph: whether a CUDA graph was replayed.
        steady: whether each warm-up became steady before its time limit.
    """

    batch: int
    sequence: int
    samples: tuple[int, ...]
    steady: bool
    padded: bool = optional(False)
    cuda_graph: bool = optional(False)
    again: tuple[int, ...] = optional(())

    @property
    def milliseconds(self) -> float:
        """Mean of the median times of one step in both passes."""
        return statistics.fmean(statistics.median(times) for times in (self.samples, self.again) if times) / 1e6

    @property
    def shift(self) -> float:
        """Difference of the median times of both passes, as a share."""
        first, second = (statistics.median(times) for times in (self.samples, self.again or self.samples))
        return max(first, second) / min(first, second) - 1


@dataclass(frozen=True)
class Sweep(Part):
    """Sizes of one axis around a centre.

    Attributes:
        axis: SEQUENCE or BATCH.
        other: batch size of sequence lengths, or sequence length of batch sizes.
        sizes: the sizes that requests may have, ascending.
        multiples: sizes are padded up to multiples of these numbers.
    """

    axis: str
    other: int
    sizes: tuple[int, ...]
    multiples: tuple[int, ...]

    def shape(self, size: int) -> tuple[int, int]:
        """Return batch and sequence."""
        return (self.other, size) if self.axis == SEQUENCE else (size, self.other)

    def targets(self) -> tuple[int, ...]:
        """Return all sizes to measure: those of requests, and those that they are padded to."""
        padded = {padded_size(size, multiple) for size in self.sizes for multiple in self.multiples}
        return tuple(sorted({*self.sizes, *padded}))


def padded_size(size: int, multiple: int) -> int:
    """Return the smallest multiple that is at least `size`."""
    return -(-size // multiple) * multiple


@dataclass(frozen=True)
class SizeVariant(Part):
    """The model with one padded size, or without a change.

    Attributes:
        name: hidden_size, intermediate_size or vocab_size; empty for the model of the cell.
        size, value: the size before and after the padding; 0 for the model of the cell.
        exact: whether its outputs are those of the model of the cell. A larger hidden size is another model, with
            random weights.
        shapes: times at the shapes of the command line.
        outcome, reason: why there are no times.
    """

    name: str = ""
    size: int = 0
    value: int = 0
    exact: bool = True
    shapes: tuple[TimedShape, ...] = ()
    outcome: str = optional("")
    reason: str = optional("")


@dataclass(frozen=True)
class AlignmentResult(Result):
    """All times.

    Attributes:
        sweeps: the sizes around each centre.
        shapes: times of the shapes of all sweeps.
        variants: the model of the cell, models with one padded size, and the model of the cell again; empty if no size
            is padded.
        removes_padding: whether the backend computes no padding, so that sequences are not padded.
    """

    sweeps: tuple[Sweep, ...]
    shapes: tuple[TimedShape, ...]
    variants: tuple[SizeVariant, ...] = ()
    removes_padding: bool = optional(False)

    @property
    def models(self) -> tuple[SizeVariant, ...]:
        """The model of the cell, in each round that measured it."""
        return tuple(variant for variant in self.variants if not variant.name and variant.shapes)

    @property
    def noise(self) -> float:
        """Median difference of the two passes over all shapes, as a share."""
        return statistics.median(shape.shift for shape in self.shapes)

    def milliseconds(self, sweep: Sweep, size: int, padded: bool = False) -> float | None:
        """Return the median time at a size; None if it was not measured."""
        times = {(shape.batch, shape.sequence, shape.padded): shape for shape in self.shapes}
        found = times.get((*sweep.shape(size), padded))
        return None if found is None else found.milliseconds

    def measured(self, sweep: Sweep) -> Iterator[TimedShape]:
        """Yield the shapes of a sweep without padding, ascending."""
        of_sweep = {sweep.shape(size) for size in sweep.targets()}
        yield from (shape for shape in self.shapes if (shape.batch, shape.sequence) in of_sweep and not shape.padded)


RESULT = AlignmentResult
