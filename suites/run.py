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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from suites.cli.command_line import FLAGS, LONGEST, overrides, run_guarded
from suites.cli.help import help_text
from suites.cli.output import run_with_tolerant_output
from suites.root import CONF
from suites.schema.refusals import Refused, shortened
from suites.tables.touched import touched, waits
from suites.text import one_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from suites.cli.display import Display
    from suites.records.record import Record
    from suites.running.pipeline import CellResult
    from suites.schema.config import RunConfig


SWEEP_BYTES = 1 << 16
"""Size of a file that is larger than the file that Hydra writes at the start of a sweep."""


@dataclass
class Invocation:
    """Cells of one command line, with their results and the number of refused requests."""

    display: Display | None = None
    ended: list[CellResult] = field(default_factory=list)
    refused: int = 0
    bad: int = 0
    running: bool = False

    def run(self, config: DictConfig) -> None:
        from suites.asking.request import resolve
        from suites.cli.display import Display
        from suites.running.pipeline import run_request

        if self.display is None:
            self.display = Display()
        self.running = True  # From here on, an exception does not come from Hydra.
        with self.display:
            try:
                run_config = checked_config(config)
                _check_architecture(run_config)
                request = resolve(run_config)
                self.display.begin(f"{request.cell['model']} {request.backend} {request.cell['precision']}")
                ended = run_request(request, self.display.stage)
            except Refused as reason:
                self.refused += 1
                self.display.say(f"refused: {shortened(str(reason), LONGEST)}")
                self.running = False
                return
            self.ended.append(ended)
            if ended.path is not None:
                touched(request.results, request.machine.slug, ended.record.cell.suite)
            if ended.another is None:
                self.display.end(ended.record.outcome, _line(ended))
        self.running = False

    def finish(self) -> None:
        """Measure in the processes that remain. The cells of a sweep take turns, with one process each."""
        while due := [index for index, ended in enumerate(self.ended) if ended.another is not None]:
            for index in due:
                self._another(index)

    def _another(self, index: int) -> None:
        ended, display = self.ended[index], self.display
        assert ended.another is not None
        assert display is not None
        with display:
            cell, number = ended.record.cell, 2 + len(ended.record.processes)
            display.begin(f"{cell.model} {cell.backend} {cell.precision}", f"process {number}")
            try:
                self.ended[index] = ended = ended.another()
            except Refused as reason:
                self.refused += 1
                self.ended[index] = replace(ended, another=None)
                display.say(f"refused: {reason}")
                return
            if ended.another is None:
                display.end(ended.record.outcome, _line(ended))

    def status(self) -> int:
        if self.refused:
            return 2
        return int(self.bad > 0 or any(e.record.outcome not in ("ok", "unsupported") for e in self.ended))

    def report(self) -> None:
        """Print the tables of these cells. Write the tables of the machines and suites that were measured."""
        from suites.records.results_folder import MachineFolder
        from suites.tables.write_tables import print_bad_records, terminal_tables, write_machine

        if waits():
            return
        measured: dict[tuple[Path, str], dict[str, list[Record]]] = {}
        for ended in self.ended:
            if ended.path is not None:
                cell, machine = ended.record.cell, ended.path.parents[2]
                by_suite = measured.setdefault((machine.parent, machine.name), {})
                by_suite.setdefault(cell.suite, []).append(ended.record)
        folders = []
        try:
            for (results, name), by_suite in measured.items():
                folders.append(folder := MachineFolder(results, name))
                for suite, records in by_suite.items():
                    print(terminal_tables(suite, records, folder))
                write_machine(folder, by_suite)
        except OSError as error:
            self.refused += 1
            print(
                f"refused: the tables were not written: {one_line(str(error))}; free space or choose another results=",
                file=sys.stderr,
            )
        self.bad += print_bad_records(folders)


def _line(ended: CellResult) -> str:
    if ended.record.reason:
        return f"{ended.record.reason}{f' (log: {_short(ended.log)})' if ended.log else ''}"
    if ended.path is None:
        built = ended.record.artifacts.get("built")
        return f"built in {built['seconds']:.0f} s and not measured" if built else "exported and not built"
    reuse_note = f" (measured {ended.record.measured_at}; rerun=true measures again)" if ended.reused else ""
    return f"{_short(ended.path)}{reuse_note}"


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


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


def _check_architecture(config: RunConfig) -> None:
    """Refuse keys of model.architecture on the command line if the weights are trained."""
    from hydra.core.hydra_config import HydraConfig

    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    keys = [word.lstrip("+~").partition("=")[0] for word in given]
    architecture_keys = [name for name in keys if name.startswith("model.architecture.")]
    if architecture_keys and config.weights.name != "random":
        raise Refused(
            f"{architecture_keys[0]} is read with weights=random only; trained weights have their own config.json"
        )


def checked_config(config: DictConfig) -> RunConfig:
    """Convert a composed configuration to an object of the schema.

    Raises:
        Refused: The configuration has a key or a type that is not in the schema.
    """
    from omegaconf import OmegaConf

    from suites.cli.hydra_errors import composition_errors, explain, keys_not_in_schema, unknown_key
    from suites.schema.config import RunConfig
    from suites.schema.config_types import check_types
    from suites.schema.run_schema import run_schema

    if added := keys_not_in_schema(config, run_schema()):
        raise Refused(unknown_key(added[0]))
    try:
        run_config = OmegaConf.to_object(config)
    except composition_errors() as error:
        raise Refused(explain(error)) from None
    if not isinstance(run_config, RunConfig):
        raise Refused("a file named schema.yaml replaces the project's schema; rename it")
    check_types(run_config)
    return run_config


def _run(arguments: Sequence[str]) -> int:
    if "--help" in arguments or "-h" in arguments:
        # Hydra would compose each of its own groups before it prints its help, which takes more than a second.
        print(help_text())
        return 0

    import hydra

    from suites.cli import composing, hydra_errors, local_settings
    from suites.cli.sweeps import check_sweep

    if name := _sweep_without_flag(arguments):
        raise Refused(f"experiment={name} is a sweep: add -m")
    sys.argv[1:] = overrides(arguments, FLAGS)
    check_sweep(sys.argv[1:])
    local_settings.register()
    composing.install()
    invocation = Invocation()
    try:
        sys.argv[1:] += _sweep_folder()
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="run")(invocation.run)()
        invocation.running = True
        invocation.finish()
        invocation.running = False
    except Exception as error:
        invocation.report()
        if isinstance(error, (Refused, *hydra_errors.composition_errors())):
            raise
        if isinstance(error, OSError):  # Raised by Hydra. A cell refuses a file that it cannot write.
            raise Refused(f"cannot read or write: {error}; check the folders named on the command line") from None
        if invocation.running:
            raise
        raise Refused(hydra_errors.unexplained(error, list(arguments))) from error
    if not (invocation.ended or invocation.refused or shows_only(sys.argv[1:])):
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
