"""Measure both sides again, process by process in the order A B B A, so that drift does not favour a side.

The commands are those of the records, or one command that the user typed. A side that is a commit runs the code of
that commit in a temporary git worktree. Each process of a cell is one run of `suites.run` that adds a process to the
record, as in `suites.batch`.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from suites.batch_runs.line_processes import LineProcesses
from suites.cli.batch_file import Line
from suites.cli.cell_commands import lines_of_cell, run_arguments
from suites.comparing.pairing import Pairs
from suites.comparing.revisions import working_tree
from suites.comparing.sides import SUITE, Kind, Side, counted, of_folders
from suites.records.record import Record
from suites.records.results_folder import machine_folders
from suites.schema.refusals import Refused, shortened

PROCESSES = 5
"""Default number of processes of each side. docs/guides/compare.md says which differences it finds."""

OWN_KEYS = ("results", "cache", "rerun", "repeats", "until")
"""Keys of a record's command that are not used again, because the comparison sets them."""

PLACEHOLDER = re.compile(r"<[\w.]+>")
"""A folder that was removed from a record's command before the record was written."""


@dataclass(frozen=True)
class Plan:
    """Commands to run.

    Attributes:
        lines: arguments of `suites.run`: the lines of A and those of B.
        processes: number of processes of each side.
        output: folder for the results folders `a` and `b`.
    """

    lines: tuple[Sequence[Line], Sequence[Line]]
    processes: int
    output: Path


def is_command(words: Sequence[str]) -> bool:
    """Return whether key=value words name a cell, so that no record is needed."""
    return any(word.partition("=")[0] in ("backend", "experiment") for word in words)


def lines_of_records(matched: Pairs, words: Sequence[str]) -> tuple[list[Line], list[Line]]:
    """Return the commands of A and of B for all pairs, each command once.

    Args:
        words: key=value words of the user, which replace those of the records.

    Raises:
        Refused: a record has no command that can run again.
    """
    of_sides: tuple[dict[str, Line], dict[str, Line]] = ({}, {})
    for pair in matched.pairs:
        for record, lines in zip((pair.a, pair.b), of_sides, strict=True):
            lines.update((shlex.join(line), line) for line in commands_of(record, words))
    return list(of_sides[0].values()), list(of_sides[1].values())


def commands_of(record: Record, words: Sequence[str]) -> list[list[str]]:
    """Return the arguments of `suites.run` that measure the cell of a record again."""
    typed = _arguments(record)
    keys = {word.partition("=")[0] for word in words if "=" in word}
    kept = [word for word in typed if word.partition("=")[0] not in (*OWN_KEYS, *keys)]
    if missing := [word for word in kept if PLACEHOLDER.search(word)]:
        raise Refused(
            f"{record.cell.id}: its command names a folder that the record does not have: {shortened(missing[0])}; "
            f"add {missing[0].partition('=')[0]}=PATH to the command line"
        )
    lines = lines_of_cell(kept, record.cell)
    return [[*line, *words] for line in lines]


def _arguments(record: Record) -> list[str]:
    arguments = run_arguments(record.command)
    if arguments is None:
        raise Refused(
            f"{record.cell.id} was not measured by `suites.run` "
            f"({shortened(shlex.join(record.command)) or 'no command'}), so its command cannot run again; choose other "
            "records"
        )
    return arguments


def run_sides(a: Side, b: Side, plan: Plan) -> tuple[Side, Side]:
    """Run all lines and return both sides with the new records. Progress is printed on standard error.

    Raises:
        Refused: a run failed.
    """
    runs = plan.processes * sum(map(len, plan.lines))
    print(f"{counted(runs, 'run')}; new records: {plan.output}", file=sys.stderr, flush=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        batches = [stack.enter_context(_batch(side, name, plan.output)) for side, name in ((a, "a"), (b, "b"))]
        try:
            for process, side, line in order(plan):
                batches[side].run(line, f"repeats={process}", *(["rerun=false"] if process > 1 else []))
                if batches[side].failed:
                    break
        except KeyboardInterrupt:
            for batch in batches:
                batch.stop()
            raise
    for name, batch in zip("AB", batches, strict=True):
        if batch.failed:
            raise Refused(f"a run of {name} failed: {batch.failed[0]}; its message is above")
    return _measured(a, plan.output / "a"), _measured(b, plan.output / "b")


def order(plan: Plan) -> Iterator[tuple[int, int, Line]]:
    """Yield the number of the process from 1, the side (0 or 1) and the line of each run: A B, then B A, then A B."""
    for process in range(1, plan.processes + 1):
        for lines in zip_longest(*plan.lines):
            for side in (0, 1) if process % 2 else (1, 0):
                if lines[side] is not None:
                    yield process, side, lines[side]


@contextlib.contextmanager
def _batch(side: Side, name: str, output: Path) -> Iterator[LineProcesses]:
    """Give the batch of a side. Artifacts of a commit have their own cache, because its code may build others."""
    common = [f"results={output / name}"]
    if side.kind is not Kind.commit:
        yield LineProcesses(common)
        return
    with working_tree(side.commit) as tree:
        common.append(f"cache={output / f'cache-{side.commit[:12]}'}")
        yield LineProcesses(common, code=tree)


def _measured(side: Side, results: Path) -> Side:
    new = of_folders(side.typed, machine_folders(results), f"new runs of {side.typed}")
    if not new.records:
        reasons = "; ".join(new.left_out) or f"no record of suite={SUITE} was written"
        raise Refused(f"the new runs of {side.typed} have no times: {reasons}; see {results}")
    kind = side.kind if side.kind is not Kind.record or len(new.records) == 1 else Kind.folder
    return replace(new, kind=kind, commit=side.commit)
