"""Jobs of an export: `sample` makes texts with reference outputs, `deploy` writes the files of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from backends.base import Artifact, BuildSpec
from backends.deployment import Deployed
from backends.model.pooling import Pooling
from backends.model.reference import ModelReference
from backends.model_output import LAST_HIDDEN, Output
from suites.running.job import Job, spec_type


@dataclass(frozen=True)
class Sampled:
    """Sample texts of a checkpoint.

    Attributes:
        samples: the .npz of backends/inputs/samples.py.
        folder, identity, origin: of the checkpoint.
        weights_sha256: digest of its weights.
        names: names of the encoder's inputs.
        tokenizer: names of the files of its tokenizer; empty if it has none.
        sentence_files: files that describe the modules after the encoder, as paths below `folder`.
        pooling: None if the files of the checkpoint ask for a pooling that is not supported.
    """

    samples: Artifact
    folder: Path
    identity: str
    origin: str
    weights_sha256: str
    names: tuple[str, ...]
    tokenizer: tuple[str, ...]
    sentence_files: tuple[str, ...]
    pooling: Pooling | None


@dataclass(frozen=True)
class SampleJob(Job[Sampled]):
    """Tokenize sample texts and compute their FP32 reference. Runs in the main interpreter.

    Attributes:
        longest: number of tokens to which texts are truncated.
        seed: of random token ids for a checkpoint without a tokenizer.
        output: output of the model.
    """

    stage: ClassVar[str] = "sample"
    answer: ClassVar[type] = Sampled

    model: ModelReference
    texts: tuple[str, ...]
    longest: int
    seed: int
    cache: Path
    output: Output = LAST_HIDDEN

    def cache_root(self) -> Path:
        return self.cache


@dataclass(frozen=True)
class DeployJob(Job[Deployed]):
    """Write the files of a built model, and expected.npz with its outputs. Runs in the backend's interpreter.

    Attributes:
        artifact: the built model.
        samples: the .npz of the sample stage.
        names: names of the encoder's inputs.
        folder: folder for the files.
        runs_here: whether this machine can run the model. If not, the FP32 reference is the expected output.
    """

    stage: ClassVar[str] = "deploy"
    answer: ClassVar[type] = Deployed

    backend: str
    spec: BuildSpec
    artifact: Artifact
    samples: Path
    names: tuple[str, ...]
    folder: Path
    runs_here: bool

    @classmethod
    def json_types(cls, data: Mapping[str, object]) -> Mapping[str, object]:
        return {"spec": spec_type(data)}

    def cache_root(self) -> Path:
        return self.spec.cache
