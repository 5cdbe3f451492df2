"""Content-addressed cache of artifacts. Several processes can use it at the same time.

An entry is a folder with the payload and `artifact.json`. Its name is the SHA-256 of its key. The builder holds a lock,
builds the entry in a temporary folder and renames the folder, so an entry is either complete or absent. If the size and
the modification time of a payload are those recorded, it is used without a read; otherwise its digest is compared.

A cache belongs to one user. Other users can read its entries if the owner's umask allows it. An entry that another user
could have written is never used, see backends/cache_files.py. A folder that several users can write therefore has one
subfolder per user (suites/asking/cache_folder.py).
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

from backends.base import Artifact
from backends.cache_files import locked, make_private_folder, new_partial, remove, share, trust_fault
from backends.json_codec import from_json

logger = logging.getLogger("backends.cache")
"""Warnings for the user: one line for each entry that is damaged or not trusted."""


TIMINGS = "timing"
"""Folder in the root of a cache with the times that builders measured. It is not content-addressed."""

EARLY_S = "started_early_s"
"""Note of a build: seconds of its first part, which ran before `get` was called. They count for the artifact."""


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            sha.update(block)
    return sha.hexdigest()


def key_digest(key: Mapping[str, object]) -> str:
    """Return the SHA-256 of a key's canonical JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class ArtifactCache:
    """Cache of artifacts in `root`/<kind>/<digest of key>/."""

    root: Path

    def get(
        self,
        kind: str,
        key: Mapping[str, object],
        filename: str,
        build: Callable[[Path], Mapping[str, object] | None],
        versions: Mapping[str, str],
    ) -> Artifact:
        """Return the artifact for `key`. If the cache has no complete one, build it with `build(path)`.

        Args:
            kind: first folder of the path, e.g. "onnx" or "inputs".
            key: all settings that affect the bytes; JSON-able. `versions` are added to it.
            filename: name of the payload.
            build: writes the payload to the path that it receives. It may write more files to the same folder. Its
                return value becomes the `notes` of the artifact.
            versions: versions of the packages that affect the bytes, by distribution name.
        """
        name = key_digest({**key, "versions": dict(versions)})[:24]
        entry = self.root / kind / name
        make_private_folder(entry.parent)
        with locked(entry.parent / f".{name}.lock"):
            artifact = self._read(entry, filename)
            if artifact is not None:
                return artifact
            for leftover in entry.parent.glob(f".{name}.*"):  # from a killed builder, which no longer has the lock
                if leftover.suffix != ".lock":
                    remove(leftover)
            partial = new_partial(entry)
            try:
                start = time.perf_counter()
                notes = build(partial / filename) or {}
                artifact = Artifact(
                    path=entry / filename,
                    sha256=digest_of(partial / filename),
                    versions=dict(versions),
                    seconds=time.perf_counter() - start + from_json(float, notes.get(EARLY_S, 0.0), EARLY_S),
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

    def find(self, kind: str, filename: str, sha256: str) -> Artifact | None:
        """Return the complete artifact of a kind whose payload has this digest; None if the cache has none."""
        for metadata in sorted((self.root / kind).glob("*/artifact.json")):
            with contextlib.suppress(OSError, ValueError):
                if sha256 in metadata.read_text(encoding="utf-8"):
                    artifact = self._read(metadata.parent, filename)
                    if artifact is not None and artifact.sha256 == sha256:
                        return artifact
        return None

    def _read(self, entry: Path, filename: str) -> Artifact | None:
        """Return the artifact in `entry`, or None if there is none.

        Also return None, with a warning, if its bytes are not those recorded or if another user could have written it.
        """
        if not os.path.lexists(entry):
            return None
        reason = "is damaged"
        try:
            reason = f"is not used: {fault}" if (fault := trust_fault(entry)) else reason
            if not fault and (artifact := _complete_artifact(entry, filename)) is not None:
                return artifact
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        logger.warning("cached %s %s %s; building it again", entry.parent.name, entry.name, reason)
        return None


def _complete_artifact(entry: Path, filename: str) -> Artifact | None:
    """Return the artifact in `entry` if its key matches the name of the entry and its files are those recorded.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError: artifact.json is damaged.
    """
    metadata = entry / "artifact.json"
    if not metadata.is_file():
        return None
    data = json.loads(metadata.read_text(encoding="utf-8"))
    key, files = data.pop("key"), data.pop("files")
    artifact = Artifact.from_json({**data, "path": entry / filename})
    if not (isinstance(artifact.notes, dict) and isinstance(artifact.sha256, str)):
        return None
    if key_digest({**key, "versions": dict(artifact.versions)})[:24] != entry.name:
        return None
    # Older entries record only sizes: the digest of their payload is compared.
    recorded = {name: stamp if isinstance(stamp, list) else [stamp, 0] for name, stamp in files.items()}
    current = _stamps(entry)
    if filename not in recorded or any(current[name][0] != size for name, (size, _) in recorded.items()):
        return None
    unchanged = all(current[name] == stamp for name, stamp in recorded.items())
    return artifact if unchanged or digest_of(artifact.path) == artifact.sha256 else None


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Return the size in bytes and the modification time in nanoseconds of each file, by relative path."""
    return {
        str(path.relative_to(folder)): [path.stat().st_size, path.stat().st_mtime_ns]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "artifact.json"
    }
