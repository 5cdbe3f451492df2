"""One stage of a cell in a process of its own: `python -m suites.worker STAGE JOBDIR`.

The protocol, on CPython 3.10 or newer with the standard library, numpy and one vendor:

- JOBDIR/job.json is read; what it holds depends on the stage, see the functions below.
- JOBDIR/out.json is written last, whole: {"outcome", "reason", "result"}. A process that ends without it failed.
- Standard output and error belong to the log, because native libraries print there.
- Lines of progress go, one JSON object each, to the file descriptor named by SUITES_PROGRESS_FD if it is set: {"text",
  "keep"}, where `keep` asks for a line that stays. The logger "backends" goes there too, and what it warns of stays.
- A worker ends when its launcher ends, whose process id is SUITES_LAUNCHER: otherwise it would use the device beside
  the next worker. SUITES_CALL marks the worker and all that it starts, see suites/process_tree.py.
- Exit status 74 (EX_IOERR) means that a file could not be written: the disk is full or the folder is read-only. The
  last line of the log says which file.
- Nothing else depends on the log or on the progress: a worker goes on when nobody reads them.
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
    load_backend,
    versions_of,
)
from suites.checks import first_line
from suites.process_tree import end_with_parent
from suites.record import FAILED, OK, UNAVAILABLE, UNSUPPORTED, write_whole

Job = Mapping[str, Any]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""A disk that takes no more, wherever it is."""

UNUSABLE = (errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""Of a path in the cache: it cannot be written. Of another path, a file of the user's: it cannot be read."""


def probe(job: Job) -> dict[str, Any]:
    """Versions of what the backend would run on, and whether it can do the job; imports no vendor."""
    backend, spec = load_backend(job["backend"]), _spec(job)
    # A batch in passes never runs whole. How long each of them will be is not known before the export.
    passes = job.get("lengths", {}).get("passes", 1)
    spec = replace(spec, shapes=tuple(Shape(shape.batch // passes, shape.sequence) for shape in spec.shapes))
    packages = (*backend.distributions, *backend.beside, "numpy", "cuda-bindings")
    versions = {"python": platform.python_version(), **versions_of(packages)}
    release = next((f"{name} {versions[name]}" for name in backend.distributions if name in versions), "")
    answer = {"versions": versions, "release": release, "outcome": OK, "reason": "", "form": {}}
    try:
        backend.check(spec)
        answer["form"] = asdict(backend.form(spec))
    except Unsupported as reason:
        answer |= {"outcome": UNSUPPORTED, "reason": str(reason)}
    except Unavailable as reason:
        answer |= {"outcome": UNAVAILABLE, "reason": str(reason)}
    return answer


def locate(job: Job) -> dict[str, Any]:
    """`path` and `origin` of the checkpoint that `model` names by its hub id; runs in the main interpreter."""
    from backends.cache import ArtifactCache
    from backends.checkpoint import locate as locate_checkpoint

    found = locate_checkpoint(job["model"], ArtifactCache(Path(job["cache"])))
    return {"path": str(found.folder), "origin": found.origin}


def export(job: Job) -> dict[str, Any]:
    """Weights, ONNX file (Q/DQ where asked for), inputs and FP32 reference; runs in the interpreter with torch.

    `shapes` of the answer are those to build and to measure: batches may be run in several passes.
    """
    if job["source"] == "none":
        from suites.placeholder import prepare, prepare_sets

        root, shapes = Path(job["cache"]), _shapes(job)
        prepared = prepare_sets(root, _asked(job), shapes) if job["suite"] == "switching" else prepare(root, shapes)
        return {**prepared, "shapes": job["shapes"]}
    from backends.cache import ArtifactCache
    from backends.checkpoint import locate as locate_checkpoint
    from backends.checkpoint_files import read_config
    from backends.families import check_computable, check_named_layers
    from backends.inputs import InputSource
    from backends.learned import learn
    from backends.onnx_source import prepare_source
    from backends.parts import parts_of
    from backends.reference_check import check_encoder, check_export
    from backends.student import Student
    from suites.inputs import INPUTS

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
    found: dict[str, Any] = {"parts": parts_of(folder), "shapes": job["shapes"], "checked": checked}
    found |= {"checkpoint": {"identity": identity, "origin": checkpoint.origin}}
    if job["source"] == "onnx":
        form, quantization = SourceForm.from_json(job["form"]), job["quantization"]
        student = Student(folder, identity, quantization, texts, seed, device.kind, form.arrays, form.floating, cache)
        learned = learn(student)
        found |= {name: artifact.to_json() for name, artifact in learned.artifacts.items()}
        source = prepare_source(*learned.checkpoint, form, quantization, texts, seed, cache, learned.ranges)
        if not form.arrays or form.ranges:
            checked["export"] = check_export(*learned.checkpoint, longest, cache)
    origin = InputSource(folder, identity, job["lengths"], texts, seed, device.kind, cache)
    source, inputs, more = INPUTS[job["suite"]](job, origin, source, _shapes(job))
    return {"source": source.to_json(), "inputs": inputs.to_json(), **found, **more}


def build(job: Job) -> dict[str, Any]:
    """The backend's own artifact from the source, in the backend's interpreter."""
    return load_backend(job["backend"]).build(_spec(job), Source.from_json(job["source"])).to_json()


def measure(job: Job) -> dict[str, Any]:
    """The suite's question, asked of a session on the built artifact, in a fresh process."""
    from suites import clock
    from suites.cpu_load import cpu_load, read_cpu

    before = read_cpu()
    question = importlib.import_module(f"suites.{job['suite']}")
    spec = _spec(job)
    backend, artifact = load_backend(job["backend"]), Artifact.from_json(job["artifact"])
    arrays = np.load(job["inputs"], allow_pickle=False)
    effort, graph = clock.Effort(**job["effort"]), spec.cuda_graph
    answer: dict[str, Any]
    if job["suite"] == "switching":
        # It opens sessions itself, one after another.
        own = {"asked": _asked(job), "traffic": job["traffic"], "repeats": job["repeats"]}
        opening = partial(backend.opening, spec, artifact)
        answer = question.measure(opening, spec.shapes, arrays, effort, graph, _progress, **own)
    else:
        _progress("opening")
        session, steps = clock.time_opening(backend.opening(spec, artifact))
        with session:
            answer = question.measure(session, spec.shapes, arrays, effort, graph, _progress)
        answer["facts"] |= {"open_ns": sum(steps.values()), "opening_ns": steps}
    answer["facts"] |= {"loaded": _loaded(), "cpu_load": cpu_load(before, read_cpu())}
    return answer


def start(job: Job) -> dict[str, Any]:
    """What comes first in a process, of suite=switching, in a fresh one; `number` of several such."""
    from suites.switching_starts import start as meet_all

    spec, artifact = _spec(job), Artifact.from_json(job["artifact"])
    opening = partial(load_backend(job["backend"]).opening, spec, artifact)
    arrays = np.load(job["inputs"], allow_pickle=False)
    return meet_all(opening, spec.shapes, arrays, _asked(job), job["number"])


def score(job: Job) -> dict[str, Any]:
    """What the outputs that `measure` wrote are worth; runs in the main interpreter, with FP32's part out of the cache
    where another path was judged before."""
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
    kept = ArtifactCache(Path(job["cache"])).get("predictions", key, "predictions.npz", build, versions)
    with np.load(kept.path, allow_pickle=False) as known:
        found = np.load(job["found"], allow_pickle=False)
        return score_outputs(kind, targets, found, inputs, checkpoint, dict(known))


def _loaded() -> dict[str, str]:
    """Versions of all that was imported, as it says itself: two distributions can install the same module."""
    # Not by attribute of the module, for a lazy one's __getattr__ may import or raise.
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


def _asked(job: Job) -> tuple[Shape, ...]:
    """Shapes that requests have, which may run at others."""
    return _shapes({**job, "shapes": job["asked"]})


def _spec(job: Job) -> BuildSpec:
    return BuildSpec(
        precision=job["precision"],
        device=Device.from_json(job["device"]),
        shapes=_shapes(job),
        cuda_graph=job["cuda_graph"],
        cache=Path(job["cache"]),
        options=job["options"],
        quantization=job.get("quantization", {}),
        tokens={Shape(batch, sequence): tokens for batch, sequence, tokens in job.get("tokens", ())},
        process=job.get("process", 0),
    )


def _progress(text: str, keep: bool = False) -> None:
    descriptor = os.environ.get("SUITES_PROGRESS_FD")
    if descriptor:
        with contextlib.suppress(OSError):  # nobody reads it any more
            os.write(int(descriptor), (json.dumps({"text": text, "keep": keep}) + "\n").encode())


class _Progress(logging.Handler):
    """Backends say what they are doing by logging; they do not know of this protocol."""

    def emit(self, record: logging.LogRecord) -> None:
        _progress(record.getMessage(), keep=record.levelno >= logging.WARNING)


def _say(text: str) -> None:
    """Write to the log, if it can be written."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _cannot_write(error: BaseException, folders: Sequence[Path]) -> bool:
    """Whether an exception, or one that it came from, says that a file below `folders` could not be written.

    Libraries in other languages report a full disk in the text of an exception of their own.
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
    """Run one stage; 0 if it answered, whatever the answer."""
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
        _say(traceback.format_exc().rstrip())
        if _cannot_write(error, [folder, Path(job.get("cache") or folder)]):
            return os.EX_IOERR
        answer = {"outcome": FAILED, "reason": first_line(error), "result": None}
    try:
        write_whole(folder / "out.json", json.dumps(answer))
    except OSError as error:
        _say(f"{type(error).__name__}: {error}")
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
