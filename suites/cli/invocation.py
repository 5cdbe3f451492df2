"""Cells of one command line of `suites.run`: check all of them, run them in turns, and print their tables."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from suites.asking.baseline import check_baseline
from suites.asking.request import Request, resolve
from suites.cli.command_line import LONGEST
from suites.cli.composing import check_architecture, checked_config
from suites.cli.display import Display
from suites.cli.output import print_styled, shows_colours
from suites.measuring.clock import now_ns
from suites.planning.expected_turns import expected_turns
from suites.planning.past_runs import PastRuns
from suites.planning.remaining_time import FIRST, LATER, CellTurns, RemainingTime
from suites.records.record import OK, Record
from suites.records.results_folder import MachineFolder
from suites.running.pipeline import CellResult, run_request
from suites.schema.config import RunConfig
from suites.schema.refusals import Refused, shortened
from suites.tables.terminal import Style, details_text, end_text
from suites.tables.touched import touched, waits
from suites.tables.write_tables import print_bad_records, terminal_tables, write_machine
from suites.text import one_line

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass
class Invocation:
    """Cells of one command line: first all of them are checked, then they are measured.

    Attributes:
        configs: configurations of the cells that can run. Requests are not stored, because each has all its texts.
        remaining: remaining time of the command.
        turns: expected turns of each cell in `configs`; empty if nothing is known.
        past: records of this machine, by results folder and machine; only for the check.
        positions: for each cell in `ended`, its index in `configs`, and its number of processes.
        refusals: number of cells for each refusal.
        bad: number of records that cannot be read.
        wide: print the tables with every column instead of the short ones.
        running: whether code of the suite runs. An exception at another time comes from Hydra.
    """

    display: Display = field(default_factory=Display)
    configs: list[RunConfig] = field(default_factory=list)
    remaining: RemainingTime = field(default_factory=lambda: RemainingTime([]))
    turns: list[CellTurns] = field(default_factory=list)
    past: dict[tuple[Path, str], PastRuns] = field(default_factory=dict)
    ended: list[CellResult] = field(default_factory=list)
    positions: list[tuple[int, int]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    bad: int = 0
    wide: bool = False
    running: bool = False

    def check(self, config: DictConfig) -> None:
        """Check one cell. Hydra calls this function for each cell of the command line."""
        self.running = True
        try:
            run_config = checked_config(config)
            check_architecture(run_config)
            check_baseline(run_config.baseline)
            request = resolve(run_config)
            self.configs.append(run_config)
            self.turns.append(self._expected_turns(request))
        except Refused as reason:
            self.refusals[str(reason)] += 1
        self.running = False

    def measure(self) -> None:
        """Run all cells, and print one line for the cells that were refused for the same reason.

        The cells of a sweep take turns: each of them measures in its first process, then each in its second.
        """
        self.running = True
        self.past.clear()
        self.remaining = RemainingTime(self.turns or [CellTurns({}, 1, 0) for _ in self.configs])
        for reason, cells in self.refusals.items():
            self._say_refused(reason, cells)
        in_check = Counter(self.refusals)
        for index, config in enumerate(self.configs):
            self._first(index, config)
        while due := [number for number, ended in enumerate(self.ended) if ended.another is not None]:
            for number in due:
                self._another(number)
        for reason, cells in (self.refusals - in_check).items():
            if cells > 1:
                self._say_refused(reason, cells)
        self.running = False

    def _expected_turns(self, request: Request) -> CellTurns:
        key = (request.results, request.machine.slug)
        past = self.past.setdefault(key, PastRuns(*key, others=False))
        return expected_turns(request, past)

    def _first(self, index: int, config: RunConfig) -> None:
        """Run one cell in its first process."""
        position = f"cell {index + 1} of {len(self.configs)}"
        began = now_ns()
        with self.display as display:
            try:
                request = resolve(config)
                title = f"{request.cell['model']} {request.backend} {request.cell['precision']}"
                display.begin(
                    title, position, process=f"process 1 of {request.repeats}", remaining=self.remaining.text()
                )
                ended = run_request(request, display.stage)
            except Refused as reason:
                self.remaining.drop(index)
                self._refuse(str(reason))
                return
            self.ended.append(ended)
            self.positions.append((index, request.repeats))
            typical = ended.record.outcome == OK and not ended.reused
            self.remaining.ended(index, FIRST, (now_ns() - began) / 1e9, typical)
            if ended.path is not None:
                touched(request.results, request.machine.slug, ended.record.cell, config.baseline, config.rank)
            if ended.another is None:
                self.remaining.drop(index)
                display.end(ended.record.outcome, _line(ended))

    def _another(self, number: int) -> None:
        """Measure one cell of `ended` in one more process."""
        ended, began = self.ended[number], now_ns()
        assert ended.another is not None
        with self.display as display:
            cell, (index, repeats) = ended.record.cell, self.positions[number]
            position = f"cell {index + 1} of {len(self.configs)}"
            process = f"process {2 + len(ended.record.processes)} of {repeats}"
            title = f"{cell.model} {cell.backend} {cell.precision}"
            display.begin(title, position, process, remaining=self.remaining.text())
            try:
                self.ended[number] = ended = ended.another()
            except Refused as reason:
                self._refuse(str(reason))
                self.remaining.drop(index)
                self.ended[number] = replace(ended, another=None)
                return
            self.remaining.ended(index, LATER, (now_ns() - began) / 1e9, ended.record.outcome == OK)
            if ended.another is None:
                self.remaining.drop(index)
                display.end(ended.record.outcome, _line(ended))

    def _refuse(self, reason: str) -> None:
        """Count a refusal, and print it the first time."""
        self.refusals[reason] += 1
        if self.refusals[reason] == 1:
            self._say_refused(reason, 1)

    def _say_refused(self, reason: str, cells: int) -> None:
        self.display.say(f"refused: {f'{cells} cells: ' if cells > 1 else ''}{shortened(reason, LONGEST)}")

    def status(self) -> int:
        if self.refusals:
            return 2
        return int(self.bad > 0 or any(e.record.outcome not in ("ok", "unsupported") for e in self.ended))

    def report(self) -> None:
        """Print the tables of these cells. Write the tables of the machines and suites that were measured."""
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
                    self._print_tables(suite, records, folder)
                if not self.wide:
                    print(details_text(_short(folder.tables), "--wide"))
                write_machine(folder, by_suite)
        except OSError as error:
            self.refusals[str(error)] += 1
            print(
                f"refused: the tables were not written: {one_line(str(error))}; free space or choose another results=",
                file=sys.stderr,
            )
        self.bad += print_bad_records(folders)
        if measured and self.refusals:
            print("\n".join(f"refused: {one_line(reason, LONGEST)}" for reason in self.refusals))

    def _print_tables(self, suite: str, records: Sequence[Record], folder: MachineFolder) -> None:
        baseline, rank = RunConfig.baseline, RunConfig.rank
        if self.configs:
            baseline, rank = self.configs[-1].baseline, self.configs[-1].rank
        if self.wide:
            print(terminal_tables(suite, records, folder, rank))
            return
        style = Style(baseline, coloured=shows_colours(), rank=rank)
        print_styled(f"{end_text(suite, records, folder, style)}\n")


def _line(ended: CellResult) -> str:
    if ended.record.reason:
        return f"{ended.record.reason}{f' (log: {_short(ended.log)})' if ended.log else ''}"
    if ended.path is None:
        built = ended.record.artifacts.built
        return f"built in {built.seconds:.0f} s and not measured" if built else "exported and not built"
    reuse_note = f" (measured {ended.record.measured_at}; rerun=true measures again)" if ended.reused else ""
    return f"{_short(ended.path)}{reuse_note}"


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
