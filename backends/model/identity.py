"""Identity of a checkpoint: a digest of every file that affects its outputs.

Cells and all cache keys use this digest. So a change of weights, configuration, tokenizer, label names or pooling gives
a different model everywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from backends.atomic_file import write_atomically
from backends.cache import digest_of, key_digest
from backends.model.checkpoint_files import identity_files, tokenizer_files, weight_files

LARGE = 1 << 22
"""Smallest size in bytes of a file whose digest is kept in the cache."""

SETTLED_S = 3.0
"""Seconds after a change of a file. A later change then gives the file different timestamps."""


def identity_of(folder: Path, cache: Path | None = None, writes: bool = True) -> str:
    """Return the SHA-256 over the names and contents of the checkpoint's files.

    Args:
        cache: folder in which digests of large files are kept by path, size and timestamps. Without it, all files are
            read each time.
        writes: whether new digests are stored in the cache.

    Raises:
        Unavailable: the folder has no weights.
        OSError: a file cannot be read.
    """
    return _digest_of_files(folder, identity_files(folder), cache, writes)


def tokenizer_identity(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of the tokenizer's files."""
    return _digest_of_files(folder, tokenizer_files(folder), None)


def weights_digest(folder: Path, cache: Path | None = None) -> str:
    """Return the SHA-256 of model.safetensors or, if the weights are in several files, of their names and digests."""
    files = weight_files(folder)
    return _digest(files[0], cache) if len(files) == 1 else _digest_of_files(folder, files, cache)


def _digest_of_files(folder: Path, files: Iterable[Path], cache: Path | None, writes: bool = True) -> str:
    return key_digest({path.relative_to(folder).as_posix(): _digest(path, cache, writes) for path in files})


def _digest(path: Path, cache: Path | None, writes: bool = True) -> str:
    """Return the digest of a file; from the cache if the file has not changed since the digest was computed."""
    before = path.stat()
    if cache is None or before.st_size < LARGE:
        return digest_of(path)
    stamp = [before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino, before.st_dev]
    entry_path = cache / "digests" / f"{key_digest({'path': str(path.resolve())})[:24]}.json"
    try:
        entry = json.loads(entry_path.read_text(encoding="utf-8"))
        if entry["stamp"] == stamp and len(entry["sha256"]) == 64:
            return str(entry["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = digest_of(path)
    if not writes:
        return digest

    def settled(entry: os.stat_result) -> bool:
        """Return whether the file changed long ago. Two changes in quick succession can give it the same timestamps."""
        return entry.st_ctime - before.st_ctime > SETTLED_S

    write_atomically(entry_path, json.dumps({"stamp": stamp, "sha256": digest}), 0o600, settled)
    return digest
