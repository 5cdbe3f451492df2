"""What a recipe for INT8 learns from a model's outputs before anything is quantized: weights, or ranges alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backends.base import Artifact
from backends.identity import identity_of
from backends.qat import RANGES, train
from backends.range_search import searched_ranges
from backends.student import Student


@dataclass(frozen=True)
class Learned:
    """
    Attributes:
        checkpoint: the folder to go on from, and its identity.
        ranges: a JSON file of ranges by place in the exported graph; None where nothing was learned.
        artifacts: what was made, by the name that a record gives it.
    """

    checkpoint: tuple[Path, str]
    ranges: Path | None = None
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)


def learn(student: Student) -> Learned:
    """What the student's `quantization` asks for."""
    if student.quantization.get("qat_steps"):
        trained = train(student)
        folder = trained.path.parent
        return Learned((folder, identity_of(folder, student.cache.root)), folder / RANGES, {"trained": trained})
    if student.quantization.get("method") == "search":
        searched = searched_ranges(student)
        return Learned((student.folder, student.identity), searched.path, {"searched": searched})
    return Learned((student.folder, student.identity))
