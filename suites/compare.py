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
from collections.abc import Sequence
from pathlib import Path

from suites.asking.user_folders import default_folder
from suites.cli.command_line import CommandParser, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.comparing.comparison import compare_sides
from suites.comparing.comparison_table import table_text, to_json
from suites.comparing.pairing import pairs_of
from suites.comparing.sides import Archive, find_side
from suites.schema.config import RunConfig
from suites.schema.refusals import Refused, shortened

TOLERANCE = 0.02
"""Default of --tolerance. It is above the drift of 1% that a GPU shows between two days, and below 3%."""


def main(arguments: Sequence[str]) -> int:
    """Print the comparison. Return 0, 1 if B is slower beyond the tolerance, or 2 if the command was refused."""

    def run() -> int:
        return _compare(_parser().parse_args(arguments))

    return run_guarded(run)


def _parser() -> CommandParser:
    parser = CommandParser(
        "compare",
        "Compare the times of two sides, shape by shape, with a verdict for each.\n\n"
        "A side is a record file, a cell id, a backend, a folder of records, or a git commit (commit:REV).\n"
        "The command pairs equal cells. It prints the ratio B/A of the median times, a confidence interval over\n"
        "processes, a verdict, and the smallest slowdown that these runs could have shown.\n"
        "Exit status: 0 no row of B is slower beyond the tolerance, 1 a row is, 2 the command was refused.",
        (
            "torch_eager torch_compile --records results/reference --machine h100 --allow-other-conditions",
            "results/before results/after --tolerance 3%",
        ),
    )
    parser.add_argument("a", metavar="A", help="the side to compare with")
    parser.add_argument("b", metavar="B", help="the side that is judged: faster or slower than A")
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
    verdict = parser.add_argument_group("verdict")
    verdict.add_argument(
        "--tolerance", default=str(TOLERANCE), metavar="T",
        help=f"share by which B may be slower, such as 0.03 or 3%%; default {TOLERANCE}",
    )  # fmt: skip
    verdict.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _compare(options: argparse.Namespace) -> int:
    tolerance = share(options.tolerance)
    archive = Archive(Path(options.records or default_folder("results")), options.machine)
    if options.records and not archive.path.is_dir():
        raise Refused(f"--records {shortened(options.records)} is not a folder; give a results folder")
    a, b = (find_side(typed, archive) for typed in (options.a, options.b))
    for name, side in (("A", a), ("B", b)):
        if not side.records:
            raise Refused(f"{name}: {side.source}: there are no latency records; measure it first, or add --run")
    comparison = compare_sides(a, b, pairs_of(a, b), tolerance, options.allow_other_conditions)
    print(to_json(comparison) if options.json else table_text(comparison, color=sys.stdout.isatty()))
    return comparison.status


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
