"""Run one stage of a cell in its own process: `python -m suites.worker STAGE JOBDIR`.

A worker needs CPython 3.10 or newer, the standard library, numpy and the packages of one backend. Protocol:

- The worker reads JOBDIR/job.json. Its keys depend on the stage, see the functions below.
- The worker writes JOBDIR/out.json at its end, atomically: {"outcome", "reason", "result"}. A worker that ends without
  writing it has failed.
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
import errno
import importlib
import json
import logging
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import (
    Artifact,
    BuildSpec,
    Device,
    Shape,
    Source,
    SourceForm,
    Unavailable,
    Unsupported,
    versions_of,
)
from backends.json_codec import from_json
from backends.onnx_.quantization_options import QuantizationOptions
from backends.registry import describe, load_backend
from suites.records.record import FAILED, OK, UNAVAILABLE, UNSUPPORTED, write_atomically
from suites.running.process_tree import end_with_parent
from suites.schema.refusals import first_line

Job = Mapping[str, Any]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a full or read-only disk. They count for every path."""

UNUSABLE = (errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of a path that cannot be written. They count for paths in the cache only: elsewhere, a file of the user cannot
be read."""


def probe(job: Job) -> dict[str, Any]:
    """Return the versions of the backend's packages and whether it can run the job. Imports no vendor library.

    Returns:
        `versions` of Python and packages, `release` (name and version of the backend's main package), `outcome` with
        its `reason`, and `form` (the fields of a `SourceForm`).
    """
    backend, spec = load_backend(job["backend"]), _spec(job)
    # A batch that is split into passes never runs whole. The export decides the sequence length of each pass.
    passes = job.get("lengths", {}).get("passes", 1)
    spec = replace(spec, shapes=tuple(Shape(shape.batch // passes, shape.sequence) for shape in spec.shapes))
    packages = (*backend.distributions, *backend.also_recorded, "numpy", "cuda-bindings")
    versions = {"python": platform.python_version(), **versions_of(packages)}
    release = next((f"{name} {versions[name]}" for name in backend.distributions if name in versions), "")
    answer = {"versions": versions, "release": release, "outcome": OK, "reason": "", "form": {}}
    try:
        backend.check(spec)
        answer["form"] = asdict(backend.source_form(spec))
    except Unsupported as reason:
        answer |= {"outcome": UNSUPPORTED, "reason": str(reason)}
    except Unavailable as reason:
        answer |= {"outcome": UNAVAILABLE, "reason": str(reason)}
    return answer


def locate(job: Job) -> dict[str, Any]:
    """Return `path` and `origin` of a checkpoint given by its hub id. Runs in the main interpreter."""
    from backends.cache import ArtifactCache
    from backends.model.checkpoint import find_checkpoint as locate_checkpoint

    checkpoint = locate_checkpoint(job["model"], ArtifactCache(Path(job["cache"])))
    return {"path": str(checkpoint.folder), "origin": checkpoint.origin}


def export(job: Job) -> dict[str, Any]:
    """Write weights, ONNX file (with Q/DQ if requested), inputs and FP32 reference. Runs in the interpreter with torch.

    `shapes` of the answer are the shapes to build and to measure: they differ from those of the job if a batch runs in
    several passes.
    """
    if job["source"] == "none":
        from suites.running.null_inputs import prepare, prepare_sets

        root, shapes = Path(job["cache"]), _shapes(job)
        prepared = (
            prepare_sets(root, _request_shapes(job), shapes) if job["suite"] == "switching" else prepare(root, shapes)
        )
        return {**prepared, "shapes": job["shapes"]}
    from backends.cache import ArtifactCache
    from backends.inputs.batches import InputSource
    from backends.int8_learning.distillation_pair import Student
    from backends.int8_learning.learn import learn
    from backends.model.checkpoint import find_checkpoint as locate_checkpoint
    from backends.model.checkpoint_files import read_config
    from backends.model.encoder_parts import encoder_parts
    from backends.model.families import check_computable, check_named_layers
    from backends.onnx_.onnx_source import prepare_source
    from backends.onnx_.reference_check import check_encoder, check_export
    from suites.running.suite_inputs import INPUTS

    cache, device = ArtifactCache(Path(job["cache"])), Device.from_json(job["device"])
    checkpoint = locate_checkpoint(job["model"], cache)
    if job["model"].get("identity", checkpoint.identity) != checkpoint.identity:
        raise RuntimeError("the checkpoint's files changed while the cell ran; run it again")
    folder, identity, config = checkpoint.folder, checkpoint.identity, read_config(checkpoint.folder)
    check_computable(config)
    if job["quantization"]:
        check_named_layers(config, "quantization")
    longest = max(sequence for _, sequence in job["shapes"])
    checked = {"encoder": check_encoder(folder, identity, longest, cache)}
    texts, seed, source = job["texts"], job["seed"], Source(folder, checkpoint.weights_sha256)
    facts: dict[str, Any] = {"parts": encoder_parts(folder), "shapes": job["shapes"], "checked": checked}
    facts |= {"checkpoint": {"identity": identity, "origin": checkpoint.origin}}
    if job["source"] == "onnx":
        form, quantization = SourceForm.from_json(job["form"]), from_json(QuantizationOptions, job["quantization"])
        student = Student(folder, identity, quantization, texts, seed, device.kind, form.arrays, form.floating, cache)
        learned = learn(student)
        facts |= {name: artifact.to_json() for name, artifact in learned.artifacts.items()}
        source = prepare_source(*learned.checkpoint, form, quantization, texts, seed, cache, learned.ranges)
        if not form.arrays or form.ranges:
            checked["export"] = check_export(*learned.checkpoint, longest, cache)
    origin = InputSource(folder, identity, job["lengths"], texts, seed, device.kind, cache)
    source, inputs, additions = INPUTS[job["suite"]](job, origin, source, _shapes(job))
    return {"source": source.to_json(), "inputs": inputs.to_json(), **facts, **additions}


def build(job: Job) -> dict[str, Any]:
    """Build the backend's artifact from the source, in the backend's interpreter."""
    return load_backend(job["backend"]).build(_spec(job), Source.from_json(job["source"])).to_json()


def measure(job: Job) -> dict[str, Any]:
    """Open a session on the built artifact and run the measurement of the suite. Runs in a fresh process."""
    from suites.measuring import clock
    from suites.measuring.cpu_load import cpu_load, read_cpu

    before = read_cpu()
    suite = importlib.import_module(f"suites.{job['suite']}.measure")
    spec = _spec(job)
    backend, artifact = load_backend(job["backend"]), Artifact.from_json(job["artifact"])
    arrays = np.load(job["inputs"], allow_pickle=False)
    effort, graph = clock.Effort(**job["effort"]), spec.cuda_graph
    answer: dict[str, Any]
    if job["suite"] == "switching":
        # This suite opens several sessions, one after another.
        traffic = {"asked": _request_shapes(job), "traffic": job["traffic"], "repeats": job["repeats"]}
        opening = partial(backend.opening, spec, artifact)
        answer = suite.measure(opening, spec.shapes, arrays, effort, graph, _progress, **traffic)
    else:
        _progress("opening")
        session, steps = clock.time_opening(backend.opening(spec, artifact))
        with session:
            answer = suite.measure(session, spec.shapes, arrays, effort, graph, _progress)
        answer["facts"] |= {"open_ns": sum(steps.values()), "opening_ns": steps}
    answer["facts"] |= {"loaded": _loaded(), "cpu_load": cpu_load(before, read_cpu())}
    return answer


def start(job: Job) -> dict[str, Any]:
    """Measure first-use costs for suite=switching in a fresh process; `number` counts these processes."""
    from suites.switching.cold_start import time_cold_start as measure_first_use

    spec, artifact = _spec(job), Artifact.from_json(job["artifact"])
    opening = partial(load_backend(job["backend"]).opening, spec, artifact)
    arrays = np.load(job["inputs"], allow_pickle=False)
    return measure_first_use(opening, spec.shapes, arrays, _request_shapes(job), job["number"])


def score(job: Job) -> dict[str, Any]:
    """Score the outputs that `measure` wrote. Runs in the main interpreter.

    The predictions of the FP32 reference come from the cache if another path was scored before.
    """
    from backends.cache import ArtifactCache
    from suites.tasks.predictions import predictions
    from suites.tasks.scoring import score as score_outputs

    kind, targets, checkpoint = job["kind"], job["targets"], Path(job["checkpoint"])
    with np.load(job["inputs"]["path"], allow_pickle=False) as arrays:
        inputs = {name: arrays[name] for name in ("reference", "text", "offsets") if name in arrays}

    def build(path: Path) -> None:
        reference = predictions(kind, targets, inputs["reference"], inputs, checkpoint)
        np.savez(path, **reference)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle

    key = {
        "inputs": job["inputs"]["sha256"], "kind": kind, "targets": targets,
        "checkpoint": job.get("identity", ""),
    }  # fmt: skip
    versions = versions_of(("scikit-learn", "torchmetrics", "torch", "transformers", "numpy"))
    artifact = ArtifactCache(Path(job["cache"])).get("predictions", key, "predictions.npz", build, versions)
    with np.load(artifact.path, allow_pickle=False) as reference_predictions:
        outputs = np.load(job["found"], allow_pickle=False)
        return score_outputs(kind, targets, outputs, inputs, checkpoint, dict(reference_predictions))


def _loaded() -> dict[str, str]:
    """Return `__version__` of all imported modules. Two distributions can install the same module."""
    # It is read from __dict__, because __getattr__ of a lazy module may import or raise.
    modules = {name: getattr(module, "__dict__", {}) for name, module in sys.modules.items() if "." not in name}
    versions = {name: contents.get("__version__") for name, contents in sorted(modules.items())}
    return {name: version for name, version in versions.items() if isinstance(version, str)}


STAGES: dict[str, Callable[[Job], dict[str, Any]]] = {
    "probe": probe,
    "locate": locate,
    "export": export,
    "build": build,
    "measure": measure,
    "start": start,
    "score": score,
}


def _shapes(job: Job) -> tuple[Shape, ...]:
    return tuple(Shape(batch, sequence) for batch, sequence in job["shapes"])


def _request_shapes(job: Job) -> tuple[Shape, ...]:
    """Return the shapes of the requests. Padding may run a request at another shape."""
    return _shapes({**job, "shapes": job["asked"]})


def _spec(job: Job) -> BuildSpec:
    return BuildSpec(
        precision=job["precision"],
        device=Device.from_json(job["device"]),
        shapes=_shapes(job),
        cuda_graph=job["cuda_graph"],
        cache=Path(job["cache"]),
        options=from_json(describe(job["backend"]).options, job["options"]),
        quantization=from_json(QuantizationOptions, job.get("quantization", {})),
        tokens={Shape(batch, sequence): tokens for batch, sequence, tokens in job.get("tokens", ())},
        process=job.get("process", 0),
        threads=job.get("threads", 0),
    )


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


def _cannot_write(error: BaseException, folders: Sequence[Path]) -> bool:
    """Return whether an exception, or one of its causes, means that a file below `folders` could not be written.

    Libraries in other languages report a full disk only in the text of their exceptions.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, OSError):
            if current.errno in FULL:
                return True
            named = [Path(os.fsdecode(name)) for name in (current.filename, current.filename2) if _is_path(name)]
            own = any(path.is_relative_to(folder) for path in named for folder in folders)
            if own and current.errno in UNUSABLE:
                return True
        if any(os.strerror(number) in str(current) for number in FULL):
            return True
        current = current.__cause__ or current.__context__
    return False


def _is_path(name: object) -> bool:
    return isinstance(name, (str, bytes))


def main(stage: str, folder: Path) -> int:
    """Run one stage. Return 0 if it wrote an answer, also if the answer is a failure."""
    if launcher := os.environ.get("SUITES_LAUNCHER"):
        end_with_parent(int(launcher), signal.SIGKILL)
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    answer: dict[str, Any]
    logger = logging.getLogger("backends")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Progress())
    try:
        answer = {"outcome": OK, "reason": "", "result": STAGES[stage](job)}
    except Unsupported as reason:
        answer = {"outcome": UNSUPPORTED, "reason": str(reason), "result": None}
    except Unavailable as reason:
        answer = {"outcome": UNAVAILABLE, "reason": str(reason), "result": None}
    except Exception as error:
        _log(traceback.format_exc().rstrip())
        if _cannot_write(error, [folder, Path(job.get("cache") or folder)]):
            return os.EX_IOERR
        answer = {"outcome": FAILED, "reason": first_line(error), "result": None}
    try:
        write_atomically(folder / "out.json", json.dumps(answer))
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
