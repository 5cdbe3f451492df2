"""Run one stage of a cell in its own process: `python -m suites.worker STAGE JOBDIR`.

A worker needs CPython 3.10 or newer, the standard library, numpy and the packages of one backend. Protocol:

- The worker reads JOBDIR/job.json. Its keys are those of the stage's job in suites/running/jobs_by_stage.py:

      locate: model, cache -> path, origin
      probe: backend, spec, passes -> versions, release, form, outcome, reason
      export: suite, backend, source, spec, model, form, lengths, texts, seed, question, effort, builder_lock
          -> source, inputs, shapes, identity, origin, parts, checked, points, learned, tokenization, sizes
      builder: backend, spec, folder -> path, sha256, versions, seconds, notes
      build: backend, spec, source -> path, sha256, versions, seconds, notes
      measure: suite, backend, spec, artifact, inputs, effort, question
          -> measurements, checks, facts, failures, result, readouts
      start: measure, number -> result
      score: kind, targets, readouts, inputs, checkpoint, identity, cache -> scores
      sample: model, texts, longest, seed, cache, output
          -> samples, folder, identity, origin, weights_sha256, names, tokenizer, sentence_files, pooling
      deploy: backend, spec, artifact, samples, names, folder, runs_here
          -> runtime, packages, files, settings, inputs, outputs, profiles, notes

- The worker writes JOBDIR/out.json at its end, atomically: {"outcome", "reason", "result"}. The keys of `result` follow
  the arrow above; it is null if the outcome is not "ok". A worker that ends without writing the file has failed.
- Standard output and standard error are the log, because native libraries print there.
- If SUITES_PROGRESS_FD is set, it is the number of a file descriptor for lines of progress. Each line is a JSON object:
  {"text", "keep"}. A line with `keep` stays visible. Messages of the logger "backends" are lines of progress too, and
  its warnings stay visible.
- SUITES_LAUNCHER is the process id of the launcher. The worker ends when the launcher ends: otherwise it would use the
  device at the same time as the next worker. SUITES_CALL marks the worker and its descendants, see
  suites/running/process_tree.py.
- Exit status 74 (EX_IOERR) means that a file could not be written: the disk is full or the folder is read-only. The
  last line of the log has the path of the file.
- A worker does not need a reader of its log or its progress: it continues if they cannot be written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backends.atomic_file import write_atomically
from backends.base import Artifact, Shape, Source, Unavailable, Unsupported, versions_of
from backends.deployment import Deployed
from backends.json_codec import from_json, to_json
from backends.registry import load_backend
from suites.measuring.measure_run import MeasureRun
from suites.records.record import FAILED, OK, UNAVAILABLE, UNSUPPORTED
from suites.running.builder_job import build_when_sent
from suites.running.deploy_job import DeployJob, Sampled, SampleJob
from suites.running.job import (
    BuildJob,
    Exported,
    ExportJob,
    FirstUse,
    Job,
    Located,
    LocateJob,
    Measured,
    MeasureJob,
    Probed,
    ProbeJob,
    Scored,
    ScoreJob,
    StartJob,
)
from suites.running.jobs_by_stage import JOBS
from suites.running.process_tree import end_with_parent
from suites.running.write_errors import cannot_write
from suites.schema.refusals import first_line
from suites.suite import load_suite, part


def probe(job: ProbeJob) -> Probed:
    """Return the versions of the backend's packages and whether it can run the job. Imports no vendor library."""
    backend = load_backend(job.backend)
    # A batch that is split into passes never runs whole. The export decides the sequence length of each pass.
    shapes = tuple(Shape(shape.batch // job.passes, shape.sequence) for shape in job.spec.shapes)
    spec = replace(job.spec, shapes=shapes)
    packages = (*backend.distributions, *backend.also_recorded, "numpy", "cuda-bindings")
    versions = {"python": platform.python_version(), **versions_of(packages)}
    release = next((f"{name} {versions[name]}" for name in backend.distributions if name in versions), "")
    try:
        backend.check(spec)
        return Probed(versions, release, backend.source_form(spec))
    except Unsupported as reason:
        return Probed(versions, release, None, UNSUPPORTED, str(reason))
    except Unavailable as reason:
        return Probed(versions, release, None, UNAVAILABLE, str(reason))


def locate(job: LocateJob) -> Located:
    """Return the folder and the origin of a checkpoint given by its hub id. Runs in the main interpreter."""
    from backends.cache import ArtifactCache
    from backends.model.checkpoint import find_checkpoint

    checkpoint = find_checkpoint(job.model, ArtifactCache(job.cache))
    return Located(checkpoint.folder, checkpoint.origin)


def export(job: ExportJob) -> Exported:
    """Write weights, ONNX file (with Q/DQ if requested), inputs and FP32 reference. Runs in the interpreter with torch.

    Raises:
        RuntimeError: files of the checkpoint changed while the cell ran.
    """
    inputs = part(job.suite, "inputs")
    if job.model is None:
        artifact: Artifact = inputs.prepare_null(job)
        return Exported(Source(artifact.path, artifact.sha256), artifact, job.spec.shapes)
    from suites.running.export_model import export_model

    return export_model(job, job.model, inputs.prepare)


def build(job: BuildJob) -> Artifact:
    """Build the backend's artifact from the source, in the backend's interpreter."""
    return load_backend(job.backend).build(job.spec, job.source)


def measure(job: MeasureJob) -> Measured:
    """Run the measurement of the suite on the built artifact. Runs in a fresh process."""
    from suites.measuring.cpu_load import cpu_load, read_cpu

    before = read_cpu()
    measured: Measured = part(job.suite, "measure").measure(_run(job), job.question)
    facts = replace(measured.facts, loaded=_loaded(), cpu_load=cpu_load(before, read_cpu()))
    return replace(measured, facts=facts)


def start(job: StartJob) -> FirstUse:
    """Measure first-use costs in a fresh process."""
    question = job.measure.question
    return FirstUse(part(job.measure.suite, "cold_start").time_cold_start(_run(job.measure), question, job.number))


def score(job: ScoreJob) -> Scored:
    """Score the outputs that `measure` wrote. Runs in the main interpreter.

    The predictions of the FP32 reference come from the cache if another path was scored before.
    """
    from backends.cache import ArtifactCache
    from suites.tasks.predictions import predictions
    from suites.tasks.scoring import score as score_outputs

    kind, targets, checkpoint = job.kind, job.targets, job.checkpoint
    with np.load(job.inputs.path, allow_pickle=False) as arrays:
        inputs = {name: arrays[name] for name in ("reference", "text", "offsets", "words") if name in arrays}

    def build(path: Path) -> None:
        reference = predictions(kind, targets, inputs["reference"], inputs, checkpoint)
        np.savez(path, **reference)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle

    key = {"inputs": job.inputs.sha256, "kind": kind, "targets": targets, "checkpoint": job.identity}
    versions = versions_of(("scikit-learn", "torchmetrics", "torch", "transformers", "numpy"))
    artifact = ArtifactCache(job.cache).get("predictions", key, "predictions.npz", build, versions)
    with np.load(artifact.path, allow_pickle=False) as reference_predictions:
        outputs = np.load(job.readouts, allow_pickle=False)
        return Scored(score_outputs(kind, targets, outputs, inputs, checkpoint, dict(reference_predictions)))


def sample(job: SampleJob) -> Sampled:
    """Return sample texts with FP32 reference outputs. Runs in the main interpreter."""
    from suites.running.deploy_model import sample

    return sample(job)


def deploy(job: DeployJob) -> Deployed:
    """Write the files of a built model for an export, with expected outputs."""
    from suites.running.deploy_model import deploy

    return deploy(job)


def _run(job: MeasureJob) -> MeasureRun:
    from suites.running.observed_process import measure_behind

    backend = load_backend(job.backend)
    spec = replace(job.spec, profiled=load_suite(job.suite).profiles)
    return MeasureRun(
        partial(backend.opening, spec, job.artifact),
        job.spec.shapes,
        np.load(job.inputs, allow_pickle=False),
        job.effort,
        job.spec.cuda_graph,
        _progress,
        job.artifact,
        partial(backend.tactics, job.artifact),
        partial(measure_behind, job),
        job.backend,
        spec,
        partial(backend.divide, spec),
        partial(backend.limit_process, spec),
    )


def _loaded() -> dict[str, str]:
    """Return `__version__` of all imported modules. Two distributions can install the same module."""
    # It is read from __dict__, because __getattr__ of a lazy module may import or raise.
    modules = {name: getattr(module, "__dict__", {}) for name, module in sys.modules.items() if "." not in name}
    versions = {name: contents.get("__version__") for name, contents in sorted(modules.items())}
    return {name: version for name, version in versions.items() if isinstance(version, str)}


STAGES: dict[str, Callable[[Any], object]] = {
    "probe": probe,
    "locate": locate,
    "export": export,
    "builder": build_when_sent,
    "build": build,
    "measure": measure,
    "start": start,
    "score": score,
    "sample": sample,
    "deploy": deploy,
}


def _progress(text: str, keep: bool = False) -> None:
    descriptor = os.environ.get("SUITES_PROGRESS_FD")
    if descriptor:
        with contextlib.suppress(OSError):  # the launcher does not read it any more
            os.write(int(descriptor), (json.dumps({"text": text, "keep": keep}) + "\n").encode())


class _Progress(logging.Handler):
    """Handler that turns log lines of backends into lines of progress."""

    def emit(self, record: logging.LogRecord) -> None:
        _progress(record.getMessage(), keep=record.levelno >= logging.WARNING)


def _log(text: str) -> None:
    """Write to the log, if it can be written."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def main(stage: str, folder: Path) -> int:
    """Run one stage. Return 0 if it wrote an answer, also if the answer is a failure."""
    if launcher := os.environ.get("SUITES_LAUNCHER"):
        end_with_parent(int(launcher), signal.SIGKILL)
    data = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    logger = logging.getLogger("backends")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Progress())
    outcome, line, result = OK, "", None
    own_folders = [folder]
    try:
        job: Job[object] = from_json(JOBS[stage], data, "job")
        own_folders.append(job.cache_root())
        result = to_json(STAGES[stage](job))
    except Unsupported as reason:
        outcome, line = UNSUPPORTED, str(reason)
    except Unavailable as reason:
        outcome, line = UNAVAILABLE, str(reason)
    except Exception as error:
        _log(traceback.format_exc().rstrip())
        if cannot_write(error, own_folders):
            return os.EX_IOERR
        outcome, line = FAILED, first_line(error)
    try:
        write_atomically(folder / "out.json", json.dumps({"outcome": outcome, "reason": line, "result": result}))
    except OSError as error:
        _log(f"{type(error).__name__}: {error}")
        return os.EX_IOERR
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m suites.worker",
        description="Run one stage of a cell. The commands run and batch start workers; users rarely need to.",
        epilog="examples:\n  python -m suites.worker probe /tmp/job\n  python -m suites.worker measure /tmp/job",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", metavar="STAGE", choices=STAGES, help=f"name of the stage: {', '.join(STAGES)}")
    parser.add_argument("folder", metavar="JOBDIR", type=Path, help="folder with job.json; out.json is written there")
    return parser


if __name__ == "__main__":
    parsed = _parser().parse_args()
    sys.exit(main(parsed.stage, parsed.folder))
