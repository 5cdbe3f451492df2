"""A content-addressed cache of artifacts that several processes may use at once.

An entry is a folder named by the SHA-256 of its key, holding the payload and `artifact.json`. It is built in
a temporary folder under a lock and renamed into place, so that an entry is either whole or absent. A payload whose size
and time of change are those that were recorded is taken as it is; any other is read to its last byte.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.base import Artifact

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


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive advisory lock on `path` (created if need be) for the block; waits for its turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


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
        with locked(self.root / kind / f".{name}.lock"):
            artifact = self._read(entry, filename)
            if artifact is not None:
                return artifact
            entry.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=entry.parent))
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
                shutil.rmtree(entry, ignore_errors=True)
                os.replace(partial, entry)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            return artifact

    def _read(self, entry: Path, filename: str) -> Artifact | None:
        """The artifact in `entry` if its bytes are those that were recorded; else None, with a line that says so."""
        if not entry.exists():
            return None
        try:
            data = json.loads((entry / "artifact.json").read_text(encoding="utf-8"))
            key, noted = data.pop("key"), data.pop("files")
            # Entries of before noted sizes alone: they are read.
            files = {name: stamp if isinstance(stamp, list) else [stamp, 0] for name, stamp in noted.items()}
            artifact = Artifact.from_json({**data, "path": entry / filename})
            found = _stamps(entry)
            whole = all(found[name][0] == size for name, (size, _) in files.items())
            untouched = all(found[name] == stamp for name, stamp in files.items())
            if key is not None and whole and (untouched or digest_of(artifact.path) == artifact.sha256):
                return artifact
        except (OSError, ValueError, KeyError, TypeError):
            pass
        logger.warning("cached %s %s is damaged; building it again", entry.parent.name, entry.name)
        return None


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Size in bytes and time of change in nanoseconds of each file."""
    return {
        str(path.relative_to(folder)): [path.stat().st_size, path.stat().st_mtime_ns]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "artifact.json"
    }
