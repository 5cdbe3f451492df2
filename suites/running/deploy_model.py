"""The stages `sample` and `deploy` of an export.

expected.npz has these arrays:

    run<r>/<input>         inputs of batch r, in the layout of the model
    sample<n>/run          the batch of sample n
    sample<n>/rows         its rows in the batch's output as [rows, features]: of its tokens, or the one of the text
    sample<n>/ids          its token ids
    sample<n>/expected     output of the exported model, FP32 [rows, features]
    sample<n>/reference    output of transformers in FP32, [rows, features]
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array, Unsupported
from backends.cache import ArtifactCache
from backends.deployment import Deploy, Deployed, Deployment
from backends.inputs.batches import InputSource
from backends.inputs.lengths import Lengths
from backends.inputs.samples import prepare_samples, read_samples, sample_runs
from backends.model.checkpoint import find_checkpoint, input_names
from backends.model.checkpoint_files import SENTENCE_FILES, tokenizer_files
from backends.model.pooling import Pooling, pooling_of
from backends.registry import describe, load_backend
from suites.running.deploy_job import DeployJob, Sampled, SampleJob

EXPECTED = "expected.npz"

Run = Callable[[Mapping[str, Array]], Array]


def sample(job: SampleJob) -> Sampled:
    """Return the sample texts of a checkpoint, and its files for the tokenizer and the pooling."""
    cache = ArtifactCache(job.cache)
    checkpoint = find_checkpoint(job.model, cache)
    folder = checkpoint.folder
    pooling: Pooling | None = None
    try:
        pooling = pooling_of(folder)
    except Unsupported:
        pooling = None
    changed = bool(job.output.pooling) or job.output.normalize is not None
    if changed:
        pooling = (pooling or Pooling()).changed_by(job.output)
    longest = min(job.longest, (pooling.longest if pooling else 0) or job.longest)
    origin = InputSource(folder, checkpoint.identity, Lengths(), job.texts, job.seed, "cpu", cache, job.output)
    return Sampled(
        samples=prepare_samples(origin, longest, pooling or Pooling()),
        folder=folder,
        identity=checkpoint.identity,
        origin=checkpoint.origin,
        weights_sha256=checkpoint.weights_sha256,
        names=input_names(folder),
        tokenizer=tuple(path.name for path in tokenizer_files(folder)),
        sentence_files=()
        if changed
        else tuple(
            sorted({str(path.relative_to(folder)) for pattern in SENTENCE_FILES for path in folder.glob(pattern)})
        ),
        pooling=pooling,
    )


def deploy(job: DeployJob) -> Deployed:
    """Write the files of the model, and expected.npz.

    Raises:
        Unsupported: the backend has no export.
    """
    export = describe(job.backend).export
    if export is None:
        raise Unsupported(f"backend={job.backend} has no export")
    samples = read_samples(job.samples)
    deployment = Deployment(load_backend(job.backend), job.spec, job.artifact, job.folder, samples, job.names)
    write_files: Deploy = _imported(export.deploy)
    deployed, arrange = write_files(deployment)
    run: Run | None = None
    if job.runs_here:
        run = _imported(f"{export.runner}:open_model")(job.folder, deployed.settings)
    arrays: dict[str, Array] = {}
    runs = sample_runs(samples, job.spec.shapes, job.names, arrange, job.spec.output.per_token)
    for number, (batch, parts) in enumerate(runs):
        arrays |= {f"run{number}/{name}": array for name, array in batch.arrays.items()}
        hidden = run(batch.arrays) if run else None
        for index, rows in parts:
            sample = samples[index]
            expected = sample.reference if hidden is None else hidden.reshape(-1, sample.reference.shape[-1])[rows]
            arrays |= {
                f"sample{index}/run": np.asarray(number),
                f"sample{index}/rows": rows,
                f"sample{index}/ids": sample.ids,
                f"sample{index}/expected": expected,
                f"sample{index}/reference": sample.reference,
            }
    _save(job.folder / EXPECTED, arrays)
    return deployed


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _save(path: Path, arrays: Mapping[str, Array]) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
