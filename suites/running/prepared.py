"""The result of a suite's `prepare`: the source of the build, and the inputs of the runs."""

from __future__ import annotations

from dataclasses import dataclass

from backends.base import Artifact, Shape, Source


@dataclass(frozen=True)
class Prepared:
    """Source and inputs of a suite.

    Attributes:
        source: the source to build from; a suite may change it.
        inputs: an .npz for the suite's `measure`.
        shapes: the shapes to build and to measure; empty for those of the job.
        points: number of points of the model that can be marked; 0 if the suite marks none.
        tokenization: times of the tokenizer; None if they are not measured.
    """

    source: Source
    inputs: Artifact
    shapes: tuple[Shape, ...] = ()
    points: int = 0
    tokenization: Artifact | None = None
