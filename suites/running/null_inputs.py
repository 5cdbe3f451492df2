"""Inputs and reference of the null backend, which has no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from backends.base import Array, Artifact, Shape, versions_of
from backends.cache import ArtifactCache
from backends.inputs.request_inputs import REFERENCES, SETS, fitting_shape
from backends.null_.null import null_hidden


def null_batches(root: Path, shapes: Sequence[Shape]) -> Artifact:
    """Write an .npz of one batch of each shape: random int32 token ids, the reference and its rows."""

    def build(path: Path) -> Mapping[str, object]:
        arrays: dict[str, Array] = {}
        for shape in shapes:
            size = (shape.batch, shape.sequence)
            ids = np.random.default_rng(0).integers(0, 1000, size, dtype=np.int32)
            arrays |= {f"{shape}/input_ids": ids, f"{shape}/attention_mask": np.ones(size, np.int32)}
            arrays |= {f"{shape}/reference": null_hidden(ids), f"{shape}/rows": np.arange(shape.batch)}
        np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
        tokens = {str(shape): {"tokens": shape.batch * shape.sequence, "cut": 0} for shape in shapes}
        return {"tokens": "random", "shapes": tokens}

    key = {"placeholder": [str(shape) for shape in shapes]}
    return ArtifactCache(root).get("inputs", key, "inputs.npz", build, versions_of(("numpy",)))


def null_request_sets(root: Path, requested: Sequence[Shape], built: Sequence[Shape]) -> Artifact:
    """Write sets of inputs in the format of backends/inputs/request_inputs.py, without padding."""

    def build(path: Path) -> Mapping[str, object]:
        arrays: dict[str, Array] = {}
        for index, shape in enumerate(requested):
            run_shape = built[fitting_shape(shape, built)]
            size = (run_shape.batch, run_shape.sequence)
            for number in range(2 * SETS):
                ids = np.random.default_rng([index, number]).integers(0, 1000, size, dtype=np.int32)
                start = f"{index}/{number}/"
                arrays |= {f"{start}input_ids": ids, f"{start}attention_mask": np.ones(size, np.int32)}
                if number < REFERENCES:
                    arrays |= {f"{start}reference": null_hidden(ids), f"{start}rows": np.arange(run_shape.batch)}
        np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
        tokens = {str(shape): {"tokens": shape.batch * shape.sequence} for shape in built}
        return {"tokens": "random", "shapes": tokens, "made_up": []}

    key = {"placeholder sets": [[str(shape) for shape in shapes] for shapes in (requested, built)]}
    return ArtifactCache(root).get("inputs", key, "sets.npz", build, versions_of(("numpy",)))
