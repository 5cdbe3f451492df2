"""Jobs of workers and their answers: everything that travels between the processes of a cell.

A job is job.json and an answer out.json (backends/json_codec.py). Both sides need only CPython 3.10 and numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from backends.base import Artifact, BuildSpec, Shape, Source, SourceForm
from backends.inputs.lengths import Lengths
from backends.json_codec import FieldTypes
from backends.model.encoder_sizes import EncoderSizes
from backends.model.reference import ModelReference
from backends.registry import describe
from suites.measuring.clock import Effort
from suites.records.facts import Facts
from suites.records.measurement import Measurement
from suites.records.parts import Check
from suites.records.record import OK
from suites.suite import FirstUseCosts, Question, Result, load_suite
from suites.tasks.task_scores import TaskScores

A = TypeVar("A")


@dataclass(frozen=True)
class Located:
    """A checkpoint on this machine: its folder, and the hub id or package that it comes from."""

    path: Path
    origin: str


@dataclass(frozen=True)
class Probed:
    """Software that a backend runs on, and whether it can run the cell.

    Attributes:
        versions: version of Python and of packages, by name.
        release: name and version of the backend's main package; empty if it is not installed.
        form: the source that the backend builds from; None if it cannot run the cell.
        outcome, reason: an outcome of suites/records/record.py, and one line why it is not "ok".
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    release: str = ""
    form: SourceForm | None = None
    outcome: str = OK
    reason: str = ""


@dataclass(frozen=True)
class Exported:
    """Files to build from and to run.

    Attributes:
        source: the source of the build stage.
        inputs: an .npz in the format of the suite's inputs.py.
        shapes: the shapes to build and to measure. They differ from those of the job if a batch runs in passes.
        identity, origin, sizes: of the checkpoint; empty or None without a model.
        parts: name patterns of the parts of the encoder.
        checked: results of the checks against transformers, by name.
        points: number of points of the model that can be marked; 0 if the suite marks none.
        learned: files of training or of a range search, by name.
        tokenization: times of the tokenizer; None if they were not measured.
    """

    source: Source
    inputs: Artifact
    shapes: tuple[Shape, ...]
    identity: str = ""
    origin: str = ""
    parts: tuple[str, ...] = ()
    checked: Mapping[str, object] = field(default_factory=dict)
    points: int = 0
    learned: Mapping[str, Artifact] = field(default_factory=dict)
    tokenization: Artifact | None = None
    sizes: EncoderSizes | None = None


@dataclass(frozen=True)
class Measured:
    """Result of one measuring process.

    Attributes:
        checks: for each shape and CUDA graph setting, the comparison of the output with the FP32 reference.
        facts: values that are not samples, such as the ns of opening.
        failures: one line for each shape or part that failed.
        result: the suite's own result; None if it has none.
        readouts: file of the outputs that the score stage judges; None if there is nothing to judge.
    """

    measurements: tuple[Measurement, ...] = ()
    checks: tuple[Check, ...] = ()
    facts: Facts = field(default_factory=Facts)
    failures: Mapping[str, str] = field(default_factory=dict)
    result: Result | None = None
    readouts: Path | None = None


def spec_type(job: Mapping[str, object]) -> FieldTypes[BuildSpec]:
    """Return the type of `spec` in the JSON of a job: its options belong to the backend."""
    return FieldTypes(BuildSpec, {"options": describe(str(job["backend"])).options})


class Job(Generic[A]):
    """Work for one stage. `answer` is the type of the stage's result."""

    stage: ClassVar[str]
    answer: ClassVar[type]

    def answer_type(self) -> type[A] | FieldTypes[A]:
        """Return the type of the answer, with the types that depend on the suite."""
        return self.answer

    def cache_root(self) -> Path:
        """Return the cache that the stage writes to."""
        raise NotImplementedError


class BackendJob(Job[A]):
    """Work with the specification of a backend's artifact."""

    spec: BuildSpec

    @classmethod
    def json_types(cls, data: Mapping[str, object]) -> Mapping[str, object]:
        return {"spec": spec_type(data)}

    def cache_root(self) -> Path:
        return self.spec.cache


@dataclass(frozen=True)
class LocateJob(Job[Located]):
    """Find the checkpoint of a hub id. Runs in the main interpreter."""

    stage: ClassVar[str] = "locate"
    answer: ClassVar[type] = Located

    model: ModelReference
    cache: Path

    def cache_root(self) -> Path:
        return self.cache


@dataclass(frozen=True)
class ProbeJob(BackendJob[Probed]):
    """Ask a backend for its versions and whether it can run the cell, in `passes` passes. Imports no vendor library."""

    stage: ClassVar[str] = "probe"
    answer: ClassVar[type] = Probed

    backend: str
    spec: BuildSpec
    passes: int = 1


@dataclass(frozen=True)
class ExportJob(BackendJob[Exported]):
    """Write weights or an ONNX file, inputs, and the FP32 reference. Runs in the interpreter with torch.

    Attributes:
        source: name of a SourceKind.
        model: None for a backend without a model.
        form: the source that the backend builds from.
        texts: sentences for calibration and, with a tokenizer, for inputs.
        seed: of inputs and calibration.
        effort: of times that the stage measures; None if the cell is not measured.
        builder_lock: file that is locked while a builder starts. No times are measured then.
    """

    stage: ClassVar[str] = "export"
    answer: ClassVar[type] = Exported

    suite: str
    backend: str
    source: str
    spec: BuildSpec
    model: ModelReference | None
    form: SourceForm
    lengths: Lengths
    texts: tuple[str, ...]
    seed: int
    question: Question
    effort: Effort | None = None
    builder_lock: Path | None = None

    @classmethod
    def json_types(cls, data: Mapping[str, object]) -> Mapping[str, object]:
        return {"question": load_suite(str(data["suite"])).question, "spec": spec_type(data)}


@dataclass(frozen=True)
class BuildJob(BackendJob[Artifact]):
    """Build the backend's artifact, in the backend's interpreter."""

    stage: ClassVar[str] = "build"
    answer: ClassVar[type] = Artifact

    backend: str
    spec: BuildSpec
    source: Source


@dataclass(frozen=True)
class MeasureJob(BackendJob[Measured]):
    """Measure in a fresh process, in the backend's interpreter.

    Attributes:
        inputs: the .npz of the export stage.
    """

    stage: ClassVar[str] = "measure"
    answer: ClassVar[type] = Measured

    suite: str
    backend: str
    spec: BuildSpec
    artifact: Artifact
    inputs: Path
    effort: Effort
    question: Question

    def answer_type(self) -> FieldTypes[Measured]:
        return FieldTypes(Measured, {"result": load_suite(self.suite).result | None})

    @classmethod
    def json_types(cls, data: Mapping[str, object]) -> Mapping[str, object]:
        return {"question": load_suite(str(data["suite"])).question, "spec": spec_type(data)}


@dataclass(frozen=True)
class FirstUse:
    """First-use costs of one process; see the suite's cold_start.py."""

    result: FirstUseCosts


@dataclass(frozen=True)
class StartJob(Job[FirstUse]):
    """Measure first-use costs in one more fresh process.

    Attributes:
        number: of this process among the extra processes, from 0.
    """

    stage: ClassVar[str] = "start"
    answer: ClassVar[type] = FirstUse

    measure: MeasureJob
    number: int

    def answer_type(self) -> FieldTypes[FirstUse]:
        return FieldTypes(FirstUse, {"result": load_suite(self.measure.suite).first_use})

    def cache_root(self) -> Path:
        return self.measure.spec.cache


@dataclass(frozen=True)
class Scored:
    """Scores of a task, see suites/tasks/scoring.py."""

    scores: TaskScores


@dataclass(frozen=True)
class ScoreJob(Job[Scored]):
    """Score outputs on a task. Runs in the main interpreter.

    Attributes:
        kind: name of a TaskKind.
        targets: JSON values, see Task in suites/tasks/task.py.
        readouts: the .npy that the measure stage wrote.
        inputs: the .npz of the export stage, with the readouts of FP32.
        checkpoint: folder of the checkpoint, for its head.
        identity: of the checkpoint.
    """

    stage: ClassVar[str] = "score"
    answer: ClassVar[type] = Scored

    kind: str
    targets: Mapping[str, object]
    readouts: Path
    inputs: Artifact
    checkpoint: Path
    identity: str
    cache: Path

    def cache_root(self) -> Path:
        return self.cache
