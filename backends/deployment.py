"""Files of a built model that serve it without the suite. Needs CPython 3.10 and numpy only.

The function `deploy` of a backend's `ExportDescription` writes the files; see `Deploy`. The module `runner` is exported
too. It has the function

    open_model(folder: Path, settings: Settings) -> Callable[[Mapping[str, Array]], Array]

which opens the model in `folder` and returns a function from arrays by input name to the last hidden state. `settings`
is `Deployed.settings`; `Settings` is a TypedDict of the module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backends.base import Artifact, Backend, BuildSpec
from backends.inputs.samples import Arrange, Sample


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model. `shape` has a number or the name of an axis for each axis."""

    name: str
    dtype: str
    shape: tuple[str, ...]


@dataclass(frozen=True)
class Deployed:
    """The files of a model.

    Attributes:
        runtime: name of the package that runs it, and its version: those that made the expected outputs.
        packages: packages to install to run it, as for pip.
        files: names of the files of the model.
        settings: settings for `open_model`.
        inputs, outputs: of the model.
        profiles: ranges of shapes, {"min", "opt", "max"} with [batch, sequence] each; empty if any shape can run.
        notes: facts about the files, for the manifest.
    """

    runtime: tuple[str, str]
    packages: tuple[str, ...]
    files: tuple[str, ...]
    settings: Mapping[str, object]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    profiles: tuple[Mapping[str, object], ...] = ()
    notes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Deployment:
    """A built model and the folder for its files.

    Attributes:
        artifact: the file that the backend built and the suite measured.
        samples: texts with their FP32 reference outputs.
        names: names of the encoder's inputs.
    """

    backend: Backend
    spec: BuildSpec
    artifact: Artifact
    folder: Path
    samples: Sequence[Sample]
    names: tuple[str, ...]


Deploy = Callable[[Deployment], tuple[Deployed, Arrange]]
"""Writes the files of a model, and returns their description and the layout of a batch in the model's inputs."""
