"""Export the model of a record: find or build its file, sample texts, and write all files of the folder."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backends.base import Artifact, BuildSpec
from backends.cache import ArtifactCache
from backends.description import ExportDescription
from backends.registry import describe
from suites.asking.request import Request
from suites.exporting.cell_configuration import cell_request, engine_spec, sampling_request
from suites.exporting.folder_readme import folder_readme
from suites.exporting.manifest import SENTENCES, ExportedModel, manifest_of
from suites.exporting.target_folder import MANIFEST
from suites.measuring.machine import gpus
from suites.records.record import OK, Record
from suites.records.suite_version import typed_command
from suites.running.deploy_job import DeployJob, Sampled, SampleJob
from suites.running.device_lock import lock_device
from suites.running.job import A, Job
from suites.running.job_folders import end_job, new_job
from suites.running.launch import CannotStart, CannotWrite
from suites.running.locating import locate_checkpoint
from suites.running.pipeline import WAITING, probe
from suites.running.stages import Progress, Stages, prepare
from suites.schema.refusals import Refused

VERIFY = Path(__file__).with_name("verify.py")


class StageFailed(Exception):
    """A stage of the export failed or exceeded its time limit; the message has the reason and the log."""


@dataclass(frozen=True)
class BuiltModel:
    """A built model.

    Attributes:
        versions: versions of the libraries, by name.
        runs_here: whether this machine has the GPU that the model needs.
        machine: name of the exporting machine.
    """

    spec: BuildSpec
    artifact: Artifact
    versions: dict[str, str]
    runs_here: bool
    machine: str


@dataclass(frozen=True)
class PreparedExport:
    """The parts of an export, and the stages that made them."""

    stages: Stages
    sampled: Sampled
    built: BuiltModel


@dataclass(frozen=True)
class CellExport:
    """Export of one record.

    Attributes:
        words: words of the command line that replace those of the cell, such as model.path=FOLDER.
    """

    record: Record
    words: Sequence[str]
    progress: Progress

    def run(self, folder: Path) -> list[str]:
        """Write all files to `folder`; return warnings.

        Raises:
            Refused: the model cannot be exported here.
            StageFailed: a stage failed.
        """
        return self.warnings(self.write(folder))

    def write(self, folder: Path) -> ExportedModel:
        """Write all files to `folder`. Raises as `run` does."""
        export = describe(self.record.cell.backend).export
        assert export is not None
        with self.prepared() as prepared:
            sampled, built, sampling = prepared.sampled, prepared.built, prepared.stages.request
            job = DeployJob(
                self.record.cell.backend,
                built.spec,
                built.artifact,
                sampled.samples.path,
                sampled.names,
                folder,
                built.runs_here,
            )
            on_device = replace(sampling.machine, device=built.spec.device)
            deploying = replace(prepared.stages, request=replace(sampling, machine=on_device))
            deployed = _result(deploying, job, sampling.interpreter)
        runner = self._copy_files(sampled, export, folder)
        model = ExportedModel(
            record=self.record,
            sampled=sampled,
            deployed=deployed,
            runner=runner,
            versions=built.versions,
            runs_here=built.runs_here,
            command=typed_command(),
            machine=built.machine,
            artifact_sha256=built.artifact.sha256,
        )
        (folder / "README.md").write_text(folder_readme(model), encoding="utf-8")
        (folder / MANIFEST).write_text(json.dumps(manifest_of(model, folder), indent=1) + "\n", encoding="utf-8")
        return model

    @contextlib.contextmanager
    def prepared(self) -> Iterator[PreparedExport]:
        """Give the sample texts and the built model. The job folder is removed at the end of the block.

        Raises:
            Refused: the model cannot be exported here.
            StageFailed: a stage failed.
        """
        sampling, export = sampling_request(self.record, self.words), describe(self.record.cell.backend).export
        with _stages(sampling, self.progress) as stages:
            located = locate_checkpoint(sampling, stages.run)
            if not isinstance(located, Request):
                raise Refused(f"the model {self.record.cell.model} cannot be exported: {located.reason}")
            sampled = self._sample(stages, located)
            yield PreparedExport(stages, sampled, self._built(sampling, export.engine if export else None))

    def _sample(self, stages: Stages, located: Request) -> Sampled:
        """Return the sample texts, after a check that the weights are those of the record."""
        assert located.model is not None
        longest = max(sequence for _, sequence in self.record.cell.shapes)
        job = SampleJob(located.model, SENTENCES, longest, located.seed, located.cache, located.spec.output)
        sampled = _result(stages, job, located.main_interpreter)
        measured = weights.sha256 if (weights := self.record.artifacts.weights) else sampled.weights_sha256
        if sampled.weights_sha256 != measured:
            raise Refused(
                f"the weights of {self.record.cell.model} differ from those of the record "
                f"({sampled.weights_sha256[:12]} and {measured[:12]}); add model.path=FOLDER with the measured weights"
            )
        return sampled

    def _built(self, sampling: Request, engine: tuple[str, str] | None) -> BuiltModel:
        """Return the model of the cell: from the cache, or from the pipeline, which builds missing files."""
        gpu = self.record.environment.gpu or ""
        if engine and gpu not in {machine.device.name for machine in gpus()}:
            return self._engine_of_another_gpu(sampling, engine)
        request = replace(cell_request(self.record, self.words), until="measure")
        with _stages(request, self.progress) as stages:
            located = locate_checkpoint(request, stages.run)
            if not isinstance(located, Request):
                raise Refused(f"the model cannot be exported: {located.reason}")
            stages.request = located
            probed = probe(located, stages)
            if probed.form is None:
                raise Refused(f"backend={located.backend} cannot build the cell here: {probed.reason}")
            device = located.machine.device
            with lock_device(device.uuid or "cpu", lambda: self.progress("wait", WAITING, True), shared=True):
                staged = prepare(located, stages, probed.form)
            if staged.job is None:
                raise _failure(stages, staged.outcome, staged.reason)
            return BuiltModel(staged.job.spec, staged.job.artifact, dict(probed.versions), True, located.machine.slug)

    def _engine_of_another_gpu(self, sampling: Request, engine: tuple[str, str]) -> BuiltModel:
        kind, filename = engine
        sha256 = self.record.artifacts.built_sha256
        artifact = ArtifactCache(sampling.cache).find(kind, filename, sha256)
        if artifact is None:
            raise Refused(
                f"the plan of the record is not in cache={sampling.cache}, and this machine cannot build it, because "
                f"it has no {self.record.environment.gpu}; run this command on a machine with that GPU, or give "
                "the cache that has the plan with cache="
            )
        versions = self.record.environment.versions
        spec = engine_spec(self.record, self.words, sampling.cache)
        return BuiltModel(spec, artifact, dict(versions), False, sampling.machine.slug)

    def _copy_files(self, sampled: Sampled, export: ExportDescription, folder: Path) -> str:
        """Copy the runner, verify.py, and the files of the tokenizer and the pooling; return the name of the runner."""
        runner = _source_of(export.runner)
        shutil.copyfile(runner, folder / runner.name)
        shutil.copyfile(VERIFY, folder / VERIFY.name)
        for name in ("config.json", *sampled.tokenizer, *sampled.sentence_files):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sampled.folder / name, folder / name)
        return runner.stem

    def warnings(self, model: ExportedModel) -> list[str]:
        """Return warnings about an exported model."""
        record, warnings, export = self.record, [], describe(self.record.cell.backend).export
        if export and export.engine:
            warnings.append(f"the plan runs only with {model.deployed.settings['built_for']}")
        if not model.runs_here:
            warnings.append("this machine does not have that GPU, so the expected outputs are those of FP32")
        if record.artifacts.built_sha256 != model.artifact_sha256:
            warnings.append("the file was built again; it is not the measured file byte for byte")
        release = " ".join(model.deployed.runtime)
        if record.cell.release and record.cell.release != release:
            warnings.append(f"the record was measured with {record.cell.release}, the export was made with {release}")
        return warnings


def _source_of(module: str) -> Path:
    """Return the file of a module, which may be of a backend outside the project. The module is not imported."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    return Path(spec.origin)


@contextlib.contextmanager
def _stages(request: Request, progress: Progress) -> Iterator[Stages]:
    """Give the stages of a request, with a job folder that is kept only if a stage failed.

    Raises:
        Refused: an interpreter does not start, or a file cannot be written.
    """
    keep = False
    try:
        folder = new_job(request.cache)
    except OSError as error:
        raise Refused(f"cache={request.cache} cannot be written ({error.strerror}); choose another folder") from None
    try:
        yield Stages(request, folder, progress)
    except StageFailed:
        keep = True
        raise
    except CannotStart as error:
        raise Refused(f"{error}; set the key interpreter to a Python with numpy") from None
    except CannotWrite as error:
        raise Refused(f"cannot write: {error}; free some space, or choose another cache= or DIR") from None
    finally:
        end_job(folder, keep)


def _result(stages: Stages, job: Job[A], python: str) -> A:
    """Run a job and return its result.

    Raises:
        Refused: it is not supported, or something is not installed.
        StageFailed: it failed.
    """
    answer = stages.run(job, python)
    if answer.result is None:
        raise _failure(stages, answer.outcome, answer.reason)
    return answer.result


def _failure(stages: Stages, outcome: str, reason: str) -> Exception:
    if outcome in ("unsupported", "unavailable"):
        return Refused(f"the model cannot be exported here: {reason}")
    assert outcome != OK
    return StageFailed(f"{outcome}: {reason} (logs: {stages.folder})")
