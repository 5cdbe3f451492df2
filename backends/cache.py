"""A content-addressed cache of artifacts that several processes may use at once.

An entry is a folder named by the SHA-256 of its key, with the payload and `artifact.json` in it. It is built in
a temporary folder under a lock and renamed into place, so that an entry is either whole or absent. A payload whose size
and time of change are those that were recorded is used without reading it; any other is compared by its digest.

A cache belongs to one user. Other users may read its entries as the umask of the owner allows, but nobody uses an entry
that another user can have written: see backends/cache_files.py. A folder that several users can write therefore has one
cache for each of them, in subfolders (suites/cache_folder.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.base import Artifact
from backends.cache_files import distrust, locked, new_partial, own_folder, remove, share

logger = logging.getLogger("backends.cache")
"""What a person should see of the cache: a line for each entry that is not what was put there."""


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            sha.update(block)
    return sha.hexdigest()


def key_digest(key: Mapping[str, Any]) -> str:
    """SHA-256 of a key's canonical JSON."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class ArtifactCache:
    """Artifacts under `root`/<kind>/<digest of key>/."""

    root: Path

    def get(
        self,
        kind: str,
        key: Mapping[str, Any],
        filename: str,
        build: Callable[[Path], Mapping[str, Any] | None],
        versions: Mapping[str, str],
    ) -> Artifact:
        """The artifact for `key`, built by `build(path)` unless a whole one is there.

        Args:
            kind: "onnx", "inputs", ...: the first folder of the path.
            key: JSON-able; everything that changes the bytes. `versions` are added to it.
            filename: name of the payload; `build` must write it and may write more beside it. What it
                returns becomes the artifact's `notes`.
        """
        name = key_digest({**key, "versions": dict(versions)})[:24]
        entry = self.root / kind / name
        own_folder(entry.parent)
        with locked(entry.parent / f".{name}.lock"):
            artifact = self._read(entry, filename)
            if artifact is not None:
                return artifact
            for left in entry.parent.glob(f".{name}.*"):  # by a builder that was killed: its lock is ours now
                if left.suffix != ".lock":
                    remove(left)
            partial = new_partial(entry)
            try:
                start = time.perf_counter()
                notes = build(partial / filename) or {}
                artifact = Artifact(
                    path=entry / filename,
                    sha256=digest_of(partial / filename),
                    versions=dict(versions),
                    seconds=time.perf_counter() - start,
                    notes=dict(notes),
                )
                (partial / "artifact.json").write_text(
                    json.dumps({**artifact.to_json(), "path": filename, "key": dict(key), "files": _stamps(partial)}),
                    encoding="utf-8",
                )
                share(partial)
                remove(entry)
                os.replace(partial, entry)
            finally:
                with contextlib.suppress(OSError):
                    remove(partial)
            return artifact

    def _read(self, entry: Path, filename: str) -> Artifact | None:
        """The artifact in `entry` if its bytes are those that were recorded and no other user can have written them;
        else None, with a line that says so."""
        if not os.path.lexists(entry):
            return None
        reason = "is damaged"
        try:
            reason = f"is not used: {why}" if (why := distrust(entry)) else reason
            if not why and (artifact := _whole(entry, filename)) is not None:
                return artifact
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        logger.warning("cached %s %s %s; building it again", entry.parent.name, entry.name, reason)
        return None


def _whole(entry: Path, filename: str) -> Artifact | None:
    """The artifact in `entry` if it is of the key that names the entry, and its files are those that were recorded.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError: artifact.json is not as written.
    """
    noted = entry / "artifact.json"
    if not noted.is_file():
        return None
    data = json.loads(noted.read_text(encoding="utf-8"))
    key, files = data.pop("key"), data.pop("files")
    artifact = Artifact.from_json({**data, "path": entry / filename})
    if not (isinstance(artifact.notes, dict) and isinstance(artifact.sha256, str)):
        return None
    if key_digest({**key, "versions": dict(artifact.versions)})[:24] != entry.name:
        return None
    # Older entries have sizes alone: their payload is compared by its digest.
    stamps = {name: stamp if isinstance(stamp, list) else [stamp, 0] for name, stamp in files.items()}
    found = _stamps(entry)
    if filename not in stamps or any(found[name][0] != size for name, (size, _) in stamps.items()):
        return None
    untouched = all(found[name] == stamp for name, stamp in stamps.items())
    return artifact if untouched or digest_of(artifact.path) == artifact.sha256 else None


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Size in bytes and time of change in nanoseconds of each file."""
    return {
        str(path.relative_to(folder)): [path.stat().st_size, path.stat().st_mtime_ns]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "artifact.json"
    }
