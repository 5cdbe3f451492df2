"""Errors of a worker which mean that a file could not be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a full or read-only disk. They count for every path."""

UNUSABLE = (errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of a path that cannot be written. They count for paths in the cache only: elsewhere, a file of the user cannot
be read."""


def cannot_write(error: BaseException, folders: Sequence[Path]) -> bool:
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
