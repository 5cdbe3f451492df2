"""The folder of an export: it is checked before work starts, and it never has half of an export.

Files are written to a hidden folder in it and renamed at the end, manifest.json last.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from suites.schema.refusals import Refused

MANIFEST = "manifest.json"

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a full disk."""


@contextlib.contextmanager
def target_folder(given: str, force: bool, label: str = "DIR") -> Iterator[Path]:
    """Give a folder for new files. At the end of the block, these files are moved to the folder `given`.

    After an exception, the folder is as it was before.

    Args:
        force: whether the folder may have files. Files of an earlier export are then removed; other files stay, unless
            a new file has the same name.
        label: name of the argument in messages.

    Raises:
        Refused: it is not a folder, it has files, or it cannot be written.
    """
    folder = Path(given).absolute()  # workers run in other folders
    existed = os.path.lexists(folder)
    if existed and not folder.is_dir():
        raise Refused(f"{label}={given} is not a folder; give the name of a new folder")
    try:
        if existed and not force and any(folder.iterdir()):
            raise Refused(
                f"{label}={given} is not empty; give a new folder, or add --force to replace an earlier export in it"
            )
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    except OSError as error:
        raise Refused(f"{label}={given} cannot be written ({error.strerror}); give another folder") from None
    try:
        yield partial
        _replace(partial, folder)
    except OSError as error:
        if error.errno not in FULL and not str(error.filename or "").startswith(str(folder)):
            raise
        raise Refused(
            f"{label}={given} cannot be written ({error.strerror}); free space or give another folder"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()  # Only an empty folder can be removed this way.


def exported_files(folder: Path) -> list[str]:
    """Return the names of the files of an earlier export in a folder, as paths below it; empty if there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        names = [str(name) for name in manifest["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if not Path(name).is_absolute() and ".." not in Path(name).parts]


def _replace(partial: Path, folder: Path) -> None:
    """Move all files of `partial` to `folder`, and remove those of an earlier export."""
    new = sorted(str(path.relative_to(partial)) for path in partial.rglob("*") if path.is_file())
    for name in (MANIFEST, *exported_files(folder)):
        if not (folder / name).is_dir():
            (folder / name).unlink(missing_ok=True)
    for name in sorted(new, key=lambda name: (name == MANIFEST, name)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial / name, folder / name)
