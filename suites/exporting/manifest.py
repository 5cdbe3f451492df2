"""manifest.json of an export: the origin of the model, its inputs, and the digest of each file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backends.cache import digest_of
from backends.deployment import Deployed, TensorInfo
from backends.json_codec import to_json
from backends.model.pooling import Pooling
from suites.exporting.target_folder import MANIFEST
from suites.records.record import Record
from suites.records.suite_version import maker
from suites.running.deploy_job import Sampled

FORMAT = 1
"""Version of the layout of manifest.json."""

SENTENCES = (
    "A man is playing a guitar on the street.",
    "Someone plays music outside.",
    "The committee will publish its report in spring.",
)
"""Sample sentences of every export."""

LEAST_COSINE = {"fp32": 0.9999, "tf32": 0.999, "fp16": 0.999, "bf16": 0.99, "int8": 0.95, "fp8": 0.95}
"""Smallest cosine, by precision, between the vector of a sentence and the vector that the exporting machine computed.
Another machine may use other kernels. A small difference before the rounding to INT8 can become a difference of one
step, so the limit for INT8 is lower: two INT8 files of minilm that differ in the storage of the embeddings only have
cosines between 0.977 and 1 (the project's own 64 sentences)."""


@dataclass(frozen=True)
class ExportedModel:
    """All facts of an export.

    Attributes:
        runner: name of the module with `open_model`.
        versions: versions of the libraries, by name.
        runs_here: whether the exporting machine ran the model.
        command: the command line of the export.
        machine: the exporting machine.
        artifact_sha256: digest of the file that was measured or built.
    """

    record: Record
    sampled: Sampled
    deployed: Deployed
    runner: str
    versions: Mapping[str, str]
    runs_here: bool
    command: tuple[str, ...]
    machine: str
    artifact_sha256: str

    @property
    def least_cosine(self) -> float:
        """Smallest cosine to the expected output with which verify.py agrees."""
        precision = self.record.cell.precision
        # Without a run on this machine, FP32 is the expected output.
        return LEAST_COSINE[precision] if self.runs_here else min(0.95, LEAST_COSINE[precision])


def manifest_of(model: ExportedModel, folder: Path) -> dict[str, object]:
    """Return the content of manifest.json for the files in `folder`."""
    record, cell, sampled, deployed = model.record, model.record.cell, model.sampled, model.deployed
    measured = record.artifacts.built_sha256
    return {
        "format": FORMAT,
        "cell": cell.id,
        "settings_of_the_cell": to_json(cell.to_json()),
        "record": {
            "machine": record.environment.machine,
            "measured_at": record.measured_at,
            "command": list(record.command),
            "maker": to_json(record.maker),
        },
        "exported": {
            "machine": model.machine,
            "command": list(model.command),
            "maker": to_json(maker()),
            "ran_the_model": model.runs_here,
            "made_from_the_measured_file": measured == model.artifact_sha256,
        },
        "runtime": dict(zip(("package", "version"), deployed.runtime, strict=True)),
        "versions": dict(model.versions),
        "model": {
            "origin": sampled.origin,
            "identity": sampled.identity,
            "weights_sha256": sampled.weights_sha256,
        },
        "runner": model.runner,
        "settings": dict(deployed.settings),
        "inputs": [_tensor(tensor) for tensor in deployed.inputs],
        "outputs": [_tensor(tensor) for tensor in deployed.outputs],
        "profiles": [dict(profile) for profile in deployed.profiles],
        "notes": dict(deployed.notes),
        "tokenizer": list(sampled.tokenizer),
        "output": cell.output,
        "pooling": _pooling(sampled.pooling),
        "sentences": list(SENTENCES),
        "expected": "outputs of this model" if model.runs_here else "FP32 reference, because the model did not run",
        "minimum_cosine": model.least_cosine,
        "files": {
            name: {"sha256": digest_of(folder / name), "bytes": (folder / name).stat().st_size}
            for name in sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            if name != MANIFEST
        },
    }


def _tensor(tensor: TensorInfo) -> dict[str, object]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _pooling(pooling: Pooling | None) -> dict[str, object]:
    """Return the pooling of sentence vectors. Without a supported one, verify.py compares means over tokens."""
    if pooling is None:
        return {"mode": "mean", "normalized": False, "source": "the pooling of the checkpoint is not supported"}
    return {
        "mode": pooling.mode,
        "normalized": pooling.normalized,
        "lower_case": pooling.lower_case,
        "longest": pooling.longest,
        "source": pooling.source,
    }
