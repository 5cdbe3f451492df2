"""Write a file in one operation, so that other processes see the whole file or the previous one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(
    path: Path, content: str | bytes, mode: int = 0o644, accept: Callable[[os.stat_result], bool] | None = None
) -> None:
    """Write `content` to a temporary file next to `path`, then rename it. Text is encoded as UTF-8.

    Args:
        mode: permissions of the file.
        accept: receives the status of the temporary file. If it returns False, `path` stays as it is.

    Raises:
        OSError: the folder cannot be written or the disk is full. No temporary file remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
            accepted = accept is None or accept(os.fstat(stream.fileno()))
        if accepted:
            os.chmod(name, mode)
            os.replace(name, path)
        else:
            os.unlink(name)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
