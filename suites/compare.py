"""Compare the times of two sides: `python -m suites.compare A B [--tolerance T] [--run] [key=value ...]`.

A side is a record file, a cell id, a backend, a folder of records or a git commit. The command pairs equal cells and
prints for each pair and shape the ratio B/A of the median times with its confidence interval over processes, a verdict,
and the smallest slowdown that the runs could have shown.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from suites.asking.user_folders import default_folder
from suites.cli.batch_file import Line
from suites.cli.command_line import CommandParser, overrides, run_guarded
from suites.cli.hydra_errors import check_keys
from suites.cli.output import run_with_tolerant_output, shows_colours
from suites.comparing.comparison import compare_sides
from suites.comparing.comparison_table import table_text, to_json
from suites.comparing.interleaved_runs import PROCESSES, Plan, is_command, lines_of_records, run_sides
from suites.comparing.pairing import Pairs, pairs_of
from suites.comparing.shift import LEAST_PROCESSES
from suites.comparing.sides import Archive, Kind, Side, find_side
from suites.schema.config import MOST_PROCESSES, RunConfig
from suites.schema.refusals import Refused, between, shortened, writable
from suites.tables.write_tables import print_bad_records

TOLERANCE = 0.02
"""Default of --tolerance. A difference can be certain and still too small to matter."""


def main(arguments: Sequence[str]) -> int:
    """Print the comparison. Return 0, 1 if B is slower beyond the tolerance, or 2 if the command was refused."""

    def run() -> int:
        return _compare(_parser().parse_intermixed_args(arguments))

    return run_guarded(run)


def _parser() -> CommandParser:
    parser = CommandParser(
        "compare",
        "Compare the times of two sides, shape by shape, with a verdict for each.\n\n"
        "A side is a record file, a cell id, a backend, a folder of records, or a git commit (commit:REV).\n"
        "The command pairs equal cells.\n"
        "Output: for each shape the median times, their ratio B/A, a confidence interval over processes, a verdict,\n"
        "and the smallest slowdown that these runs could have shown.\n"
        "Exit status: 0 no row of B is slower beyond the tolerance, 1 a row is, 2 the command was refused.",
        (
            "torch_eager torch_compile --records results/reference --machine h100",
            "results/before results/after --tolerance 3%",
        ),
    )
    parser.add_argument("a", metavar="A", help="the side to compare with")
    parser.add_argument("b", metavar="B", help="the side that is judged: faster or slower than A")
    parser.add_argument(
        "words", nargs="*", default=[], metavar="key=value",
        help="with --run: keys of the command run that replace those of the records; with backend=, two commits need "
        "no records",
    )  # fmt: skip
    records = parser.add_argument_group("records")
    records.add_argument(
        "--records", metavar="DIR",
        help=f"results folder in which cell ids, backends and commits are searched; default {RunConfig.results}",
    )  # fmt: skip
    records.add_argument("--machine", default="", metavar="NAME", help="any part of the name of the machine")
    records.add_argument(
        "--allow-other-conditions", action="store_true",
        help="also compare records of different devices, drivers, power limits or clock policies",
    )  # fmt: skip
    runs = parser.add_argument_group("new runs")
    runs.add_argument(
        "--run", action="store_true",
        help="measure both sides again with the commands of their records, in the order A B B A, and compare these\n"
        "runs; a commit runs its own code in a temporary git worktree",
    )  # fmt: skip
    runs.add_argument(
        "--processes", type=int, metavar="N", help=f"processes of each side with --run; default {PROCESSES}"
    )
    runs.add_argument("--output", metavar="DIR", help="empty folder for the new records; default: a temporary folder")
    verdict = parser.add_argument_group("verdict")
    verdict.add_argument(
        "--tolerance", default=str(TOLERANCE), metavar="T",
        help=f"share by which B may be slower, such as 0.03 or 3%%; default {TOLERANCE}",
    )  # fmt: skip
    verdict.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _compare(options: argparse.Namespace) -> int:
    tolerance = share(options.tolerance)
    for name in ("words", "processes", "output") if not options.run else ():
        if getattr(options, name):
            word = options.words[0] if name == "words" else f"--{name}"
            raise Refused(f"{shortened(word)} is for new runs; add --run, or leave it out")
    archive = Archive(Path(options.records or default_folder("results")), options.machine)
    if options.records and not archive.path.is_dir():
        raise Refused(f"--records {shortened(options.records)} is not a folder; give a results folder")
    a = find_side(options.a, archive)
    b = a if options.b == options.a else find_side(options.b, archive)
    if options.run:
        a, b = _run(a, b, options)
    comparison = compare_sides(a, b, _pairs(a, b), tolerance, options.allow_other_conditions)
    print(to_json(comparison) if options.json else table_text(comparison, color=shows_colours()))
    # A record that cannot be read may be the one that got slower.
    return max(comparison.status, int(print_bad_records(archive.read_folders) > 0))


def _pairs(a: Side, b: Side) -> Pairs:
    for name, side in (("A", a), ("B", b)):
        if not side.records:
            raise Refused(f"{name}: {side.source}: there are no latency records; measure it first, or add --run")
    return pairs_of(a, b)


def _run(a: Side, b: Side, options: argparse.Namespace) -> tuple[Side, Side]:
    """Measure both sides again."""
    processes = options.processes
    if processes is None:
        processes = PROCESSES
    between("--processes", processes, LEAST_PROCESSES, MOST_PROCESSES)
    words = overrides(options.words)
    check_keys(words)
    commits = [side for side in (a, b) if side.kind is Kind.commit]
    if is_command(words):
        if len(commits) < 2:
            raise Refused("with --run, backend= and experiment= are for two commits; leave them out to run the records")
        lines: tuple[Sequence[Line], Sequence[Line]] = ([words], [words])
    else:
        # The code of a commit that has no records is measured with the commands of the other side.
        with_records = [side if side.records else other for side, other in ((a, b), (b, a))]
        lines = lines_of_records(_pairs(*with_records), words)
    return run_sides(a, b, Plan(lines, processes, _output(options.output)))


def _output(given: str | None) -> Path:
    if not given:
        return Path(tempfile.mkdtemp(prefix="compare-"))
    folder = writable("--output", given)
    if any(folder.iterdir()):
        raise Refused(f"--output {shortened(given)} is not empty; give an empty or a new folder")
    return folder


def share(text: str) -> float:
    """Return a share that is typed as a number or in percent.

    Raises:
        Refused: it is not a number from 0 to 10.
    """
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 10:
        raise Refused(
            f"--tolerance {shortened(text)} must be a number from 0 to 10 or a percentage, such as 0.03 or 3%"
        )
    return number


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
