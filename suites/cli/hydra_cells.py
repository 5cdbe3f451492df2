"""Compose each cell of a command line with Hydra."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from suites.cli.command_line import FLAGS, overrides
from suites.root import CONF
from suites.schema.refusals import Refused

if TYPE_CHECKING:
    from omegaconf import DictConfig

SWEEP_BYTES = 1 << 16
"""Size of a file that is larger than the file that Hydra writes at the start of a sweep."""

PLAN = "--plan"
"""Flag that plans the cells and runs none."""

WIDE = "--wide"
"""Flag that prints the tables with every column at the end."""


def compose_cells(arguments: Sequence[str], check: Callable[[DictConfig], None]) -> None:
    """Call `check` with the composed configuration of each cell of a command line of `suites.run`.

    It changes `sys.argv`, where Hydra reads its arguments. With --plan, no file remains.

    Raises:
        Refused: an argument is wrong. Errors of Hydra are those of `hydra_errors.composition_errors`.
    """
    import hydra

    from suites.cli import composing, local_settings
    from suites.cli.sweeps import check_sweep

    if name := _sweep_without_flag(arguments):
        raise Refused(f"experiment={name} is a sweep: add -m")
    given = overrides(arguments, (*FLAGS, PLAN))
    plans = PLAN in given
    if plans and shows_only(given):
        raise Refused("--plan and --cfg or --info exclude one another; leave one out")
    sys.argv[1:] = [word for word in given if word not in (PLAN, WIDE)]
    check_sweep(sys.argv[1:])
    local_settings.register()
    composing.install()
    with _removed_folder() if plans else _shared_folder() as folder:
        sys.argv[1:] += folder
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="run")(check)()


def shows_only(arguments: Sequence[str]) -> bool:
    """Return whether the flags request that a configuration is shown instead of run."""
    return any(word.startswith(("--cfg", "--info")) for word in arguments)


def _sweep_without_flag(arguments: Sequence[str]) -> str:
    """Return the first experiment in `arguments` that is a sweep, if -m is missing. Otherwise return "".

    Without -m, Hydra would ignore the sweep and run one cell.
    """
    experiments = [word.partition("=")[2] for word in arguments if word.startswith("experiment=")]
    if {"-m", "--multirun", "--cfg"} & set(arguments):
        return ""
    return next((name for name in experiments if "sweeper:" in _text(CONF / "experiment" / f"{name}.yaml")), "")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@contextlib.contextmanager
def _shared_folder() -> Iterator[list[str]]:
    """Yield the override that makes Hydra write its file of a sweep into a temporary folder. Without -m yield [].

    Nobody reads this file. All sweeps of a user share the folder, so killed sweeps leave only one folder behind.

    Raises:
        Refused: There is no writable temporary folder.
    """
    if not _sweeps():
        yield []
        return
    try:
        folder = os.path.join(tempfile.gettempdir(), f"suites-sweep-{os.geteuid()}")
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        status = os.lstat(folder)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            folder = tempfile.mkdtemp(prefix="suites-sweep-")  # Another user created the shared folder.
        (Path(folder) / "multirun.yaml").write_text(" " * SWEEP_BYTES, encoding="utf-8")
    except OSError as error:
        raise _no_temporary_folder(error) from None
    yield [_sweep_override(folder)]


@contextlib.contextmanager
def _removed_folder() -> Iterator[list[str]]:
    """Yield the same override as `_shared_folder`, with a folder that is removed at the end."""
    if not _sweeps():
        yield []
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="suites-sweep-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_temporary_folder(error) from None
    with folder as path:
        yield [_sweep_override(path)]


def _sweeps() -> bool:
    return bool({"-m", "--multirun"} & set(sys.argv[1:]))


def _no_temporary_folder(error: OSError) -> Refused:
    return Refused(f"a sweep needs a writable temporary folder ({error.strerror}); set TMPDIR to a writable folder")


def _sweep_override(folder: str) -> str:
    quoted = folder.replace("\\", "\\\\").replace("'", "\\'")
    return f"hydra.sweep.dir='{quoted}'"
