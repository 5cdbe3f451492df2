"""Notes of built engines: for the settings of a build, the place of the engine in the cache.

The name of an engine in the cache depends on its ONNX file, which only a worker can make. A plan starts no worker, so
each build leaves a note CACHE/engine-notes/DIGEST.json with the place of its engine.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from backends.atomic_file import write_atomically
from backends.base import Artifact
from backends.cache import key_digest
from backends.json_codec import to_object
from backends.registry import describe
from suites.asking.request import Request

FOLDER = "engine-notes"

MOST_POINTS = 1 << 30
"""More points than any model has."""


def engine_key(request: Request) -> str:
    """Return the digest of all settings of a request that its engine depends on; "" if its backend builds no engine."""
    backend = describe(request.backend)
    if not backend.builds_engine:
        return ""
    spec = {
        name: value
        for name, value in to_object(request.spec).items()
        if name not in ("cache", "process", "tokens", "build_limit")
    }
    cell: Mapping[str, object] = request.cell
    return key_digest(
        {
            "backend": request.backend,
            "interpreter": request.interpreter,
            "machine": [request.machine.slug, request.machine.device.uuid],
            "model": [cell[name] for name in ("model", "weights", "model_version")],
            "spec": spec,
            "lengths": request.lengths.settings(),
            "texts": request.cell["lengths"]["texts"],
            "seed": request.seed,
            # A suite with several rounds marks other points in each, so its engines are its own.
            "question": to_object(request.question) if request.question.following(MOST_POINTS) else None,
            # An engine for packed tokens is tuned for the number of tokens of the suite's inputs.
            "suite": request.suite if backend.packs_tokens else "",
        }
    )[:24]


def note_engine(request: Request, built: Artifact) -> None:
    """Note the place of a built engine. A note that cannot be written is left out: only plans read it."""
    key = engine_key(request)
    if key and built.path.is_relative_to(request.cache):
        with contextlib.suppress(OSError):
            place = str(built.path.relative_to(request.cache))
            write_atomically(_path(request.cache, key), json.dumps({"path": place}), 0o600)


def is_noted(cache: Path, key: str) -> bool:
    """Return whether the cache has the engine with this key."""
    try:
        place = json.loads(_path(cache, key).read_text(encoding="utf-8"))["path"]
        return (cache / str(place)).is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _path(cache: Path, key: str) -> Path:
    return cache / FOLDER / f"{key}.json"
