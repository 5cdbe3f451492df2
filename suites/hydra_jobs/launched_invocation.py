"""Cells of one command line that a launcher of Hydra runs, on this host or on the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.atomic_file import write_atomically
from suites.asking.baseline import check_baseline
from suites.asking.request import resolve
from suites.asking.user_folders import chosen_folder
from suites.cli.command_line import FLAGS, REFUSED, overrides
from suites.cli.composing import check_architecture, checked_config
from suites.cli.hydra_cells import WIDE
from suites.cli.invocation import Invocation
from suites.hydra_jobs.launched_sweep import LaunchedSweep
from suites.hydra_jobs.launchers import LAUNCHERS, Choice
from suites.hydra_jobs.sweep_folder import CellAnswer, RecordFile
from suites.records.record import read_record
from suites.records.value_types import MACHINE_NAME, WORD, BadRecord
from suites.running.pipeline import CellResult
from suites.schema.refusals import Refused, first_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

REFUSAL = "refused: "


class LaunchedInvocation(Invocation):
    """Cells that run as jobs of a launcher.

    Devices and files of a cluster's node are checked on the node, when the cell starts there.

    Args:
        choice: the launcher.
        typed: the command line without the words about the launcher.
    """

    def __init__(self, choice: Choice, typed: Sequence[str]) -> None:
        super().__init__(wide=WIDE in typed)
        self._choice = choice
        self._folders = [word for word in overrides(typed, FLAGS) if word.startswith("--config-dir")]
        self._cells: list[list[str]] = []
        self._failed = 0

    def check(self, config: DictConfig) -> None:
        """Check one cell as far as this host can. Hydra calls this function for each cell of the command line."""
        from hydra.core.hydra_config import HydraConfig

        self.running = True
        try:
            run_config = checked_config(config)
            check_architecture(run_config)
            check_baseline(run_config.baseline)
            if LAUNCHERS[self._choice.name].same_host:
                resolve(run_config)
            words = list(HydraConfig.get().overrides.task)
            # An experiment may be a sweep, which needs the flag also with one value for each key.
            flags = ["-m"] if any(word.startswith("experiment=") for word in words) else []
            self._cells.append([*flags, *self._folders, *words])
            self.configs.append(run_config)
        except Refused as reason:
            self.refusals[str(reason)] += 1
        self.running = False

    def measure(self) -> None:
        """Run all cells as jobs, print a line when a process starts and when a cell ends, and store all records.

        Raises:
            Refused: the launcher refused the jobs.
        """
        self.running = True
        for reason, cells in self.refusals.items():
            self._say_refused(reason, cells)
        if self.configs:
            sweep = LaunchedSweep(self._choice, self._cells, self.display.say, self._ended)
            sweep.run(self._results(0))
            for number in sweep.lost:
                self._failed += 1
                self.display.say(f"failed  cell {number + 1} of {len(self._cells)}: {sweep.failure}")
        self.running = False

    def _results(self, cell: int) -> Path:
        return Path(chosen_folder("results", self.configs[cell].results)).absolute()

    def _ended(self, answer: CellAnswer) -> None:
        """Print the messages of a cell that has ended, and store its records."""
        place = f"cell {answer.cell + 1} of {len(self._cells)}  {answer.host}"
        for message in answer.messages:
            if message.startswith(REFUSAL):
                self.refusals[message.removeprefix(REFUSAL)] += 1
            self.display.say(f"{place}  {message}")
        stored = []
        for file in answer.records:
            try:
                stored.append(self._stored(answer.cell, file))
            except (Refused, BadRecord, OSError) as error:
                self._failed += 1
                self.display.say(f"failed  {place}: its record cannot be used: {first_line(error)}")
        self.ended += stored
        if answer.status == REFUSED and not any(text.startswith(REFUSAL) for text in answer.messages):
            self.refusals[f"cell {answer.cell + 1} was refused on {answer.host}"] += 1
        elif answer.status not in (0, REFUSED) and not stored:
            self._failed += 1

    def _stored(self, cell: int, file: RecordFile) -> CellResult:
        """Write a record to the results of this command, unless the node has written it there.

        Raises:
            Refused: the names of the record are not valid.
            BadRecord: this version cannot use the record. Its file remains.
            OSError: the file cannot be written.
        """
        if not (MACHINE_NAME.fullmatch(file.machine) and WORD.fullmatch(file.suite)) or "/" in file.cell:
            raise Refused(f"a node returned a record with a name that is not valid: {file.machine}/{file.cell}")
        path = self._results(cell) / file.machine / "records" / file.suite / f"{file.cell}.json"
        if not path.exists() or path.read_text(encoding="utf-8") != file.text:
            write_atomically(path, file.text)
        return CellResult(read_record(path), path, reused=False)

    def status(self) -> int:
        """Return 2 if a cell was refused, 1 if a cell failed or its job was lost, else 0."""
        return super().status() or int(self._failed > 0)
