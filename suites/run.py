"""Run one cell, or with -m each cell of a sweep: `python -m suites.run`.

Hydra composes the configuration. The exit status is 0 if every cell ended as ok or unsupported, 1 if a cell failed,
timed out or was unavailable, and 2 if a request was refused. No large library is imported before a cell starts.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from suites.cli.command_line import FLAGS, overrides, run_guarded
from suites.cli.help import help_text
from suites.cli.output import run_with_tolerant_output
from suites.root import CONF
from suites.schema.refusals import Refused, shortened

SWEEP_BYTES = 1 << 16
"""Size of a file that is larger than the file that Hydra writes at the start of a sweep."""


WIDE = "--wide"
"""Flag that prints the tables with every column at the end."""


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


def _run(arguments: Sequence[str]) -> int:
    if "--help" in arguments or "-h" in arguments:
        # Hydra would compose each of its own groups before it prints its help, which takes more than a second.
        print(help_text())
        return 0

    import hydra

    from suites.cli import composing, hydra_errors, local_settings
    from suites.cli.invocation import Invocation
    from suites.cli.sweeps import check_sweep

    if name := _sweep_without_flag(arguments):
        raise Refused(f"experiment={name} is a sweep: add -m")
    sys.argv[1:] = [word for word in overrides(arguments, FLAGS) if word != WIDE]
    check_sweep(sys.argv[1:])
    local_settings.register()
    composing.install()
    invocation = Invocation(wide=WIDE in arguments)
    try:
        sys.argv[1:] += _sweep_folder()
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="run")(invocation.check)()
        invocation.measure()
    except Exception as error:
        invocation.report()
        if isinstance(error, (Refused, ModuleNotFoundError, *hydra_errors.composition_errors())):
            raise
        if isinstance(error, OSError):  # Raised by Hydra. A cell refuses a file that it cannot write.
            raise Refused(f"cannot read or write: {error}; check the folders named on the command line") from None
        if invocation.running:
            raise
        raise Refused(hydra_errors.unexplained(error, list(arguments))) from error
    if not (invocation.ended or invocation.refusals or shows_only(sys.argv[1:])):
        swept = [word for word in arguments if "(" in word]
        raise Refused(f"the sweep has no cells: {shortened(' '.join(swept) or ' '.join(arguments))} gives no value")
    invocation.report()
    return invocation.status()


def _sweep_folder() -> list[str]:
    """Return the override that makes Hydra write its file of a sweep into a temporary folder. Without -m return [].

    Nobody reads this file. All sweeps of a user share the folder, so killed sweeps leave only one folder behind.

    Raises:
        Refused: There is no writable temporary folder.
    """
    if not {"-m", "--multirun"} & set(sys.argv[1:]):
        return []
    try:
        folder = os.path.join(tempfile.gettempdir(), f"suites-sweep-{os.geteuid()}")
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        status = os.lstat(folder)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            folder = tempfile.mkdtemp(prefix="suites-sweep-")  # Another user created the shared folder.
        (Path(folder) / "multirun.yaml").write_text(" " * SWEEP_BYTES, encoding="utf-8")
    except OSError as error:
        raise Refused(
            f"a sweep needs a writable temporary folder ({error.strerror}); set TMPDIR to a writable folder"
        ) from None
    quoted = folder.replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.sweep.dir='{quoted}'"]


def shows_only(arguments: Sequence[str]) -> bool:
    """Return whether the flags request that a configuration is shown instead of run."""
    return any(word.startswith(("--cfg", "--info")) for word in arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit status. The default is the command line of this process."""
    return run_guarded(lambda: _run(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(main))
