"""What tells one checkpoint from another: a digest of every file that decides its outputs.

Cells and all keys of the cache use this one digest, so that a change of weights, configuration, tokenizer, label names
or pooling is another model everywhere.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from backends.cache import digest_of, key_digest
from backends.checkpoint_files import identity_files, tokenizer_files, weight_files

LARGE = 1 << 22
"""Bytes from which on the digest of a file is kept in the cache."""

SETTLED_S = 3.0
"""Seconds since the last change after which a file's times tell that it did not change again."""


def identity_of(folder: Path, cache: Path | None = None) -> str:
    """SHA-256 over the names and contents of the checkpoint's files.

    Args:
        cache: where digests of large files are kept by path, size and times; without it they are read each time.

    Raises:
        Unavailable: the folder holds no weights.
        OSError: a file cannot be read.
    """
    return _digest_of_files(folder, identity_files(folder), cache)


def tokenizer_identity(folder: Path) -> str:
    """The same over the files of the tokenizer alone."""
    return _digest_of_files(folder, tokenizer_files(folder), None)


def weights_digest(folder: Path, cache: Path | None = None) -> str:
    """SHA-256 of model.safetensors; of a checkpoint in several files, of their names and digests."""
    files = weight_files(folder)
    return _digest(files[0], cache) if len(files) == 1 else _digest_of_files(folder, files, cache)


def _digest_of_files(folder: Path, files: Iterable[Path], cache: Path | None) -> str:
    return key_digest({path.relative_to(folder).as_posix(): _digest(path, cache) for path in files})


def _digest(path: Path, cache: Path | None) -> str:
    """The digest of a file, from the cache if the file is as it was when the digest was taken."""
    before = path.stat()
    if cache is None or before.st_size < LARGE:
        return digest_of(path)
    stamp = [before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino, before.st_dev]
    kept = cache / "digests" / f"{key_digest({'path': str(path.resolve())})[:24]}.json"
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known["stamp"] == stamp and len(known["sha256"]) == 64:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = digest_of(path)
    _keep(kept, json.dumps({"stamp": stamp, "sha256": found}), before.st_ctime)
    return found


def _keep(path: Path, text: str, changed: float) -> None:
    """Write `text`, unless the file that it is about changed so lately that its times would not show another change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        now = os.fstat(descriptor).st_ctime
    if now - changed > SETTLED_S:
        os.replace(name, path)
    else:
        os.unlink(name)
