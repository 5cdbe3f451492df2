"""Training or range search of an INT8 recipe, before quantization. Both learn from the FP32 model's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backends.base import Artifact
from backends.int8_learning.distillation_pair import Student
from backends.int8_learning.qat import TRAINED_RANGES, train
from backends.int8_learning.range_search import searched_ranges
from backends.model.identity import identity_of
from backends.quantization_options import Method


@dataclass(frozen=True)
class LearnedRecipe:
    """Checkpoint and activation ranges after the learning step of an INT8 recipe.

    Attributes:
        checkpoint: the folder for the next steps, and its identity.
        ranges: a JSON file with a range for each place in the exported graph. None if nothing was learned.
        artifacts: the files that were made, by their name in the record.
    """

    checkpoint: tuple[Path, str]
    ranges: Path | None = None
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)


def learn(student: Student) -> LearnedRecipe:
    """Train the checkpoint or search its ranges, as `student.quantization` requests; otherwise change nothing."""
    if student.quantization.qat_steps:
        trained = train(student)
        folder = trained.path.parent
        return LearnedRecipe(
            (folder, identity_of(folder, student.cache.root)), folder / TRAINED_RANGES, {"trained": trained}
        )
    if student.quantization.method is Method.search:
        searched = searched_ranges(student)
        return LearnedRecipe((student.folder, student.identity), searched.path, {"searched": searched})
    return LearnedRecipe((student.folder, student.identity))
