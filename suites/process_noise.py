"""Write the spread of times between processes from records: `python -m suites.process_noise RESULTS`.

The command reads the latency records under RESULTS and writes suites/statistics/process_noise.json; see
suites/statistics/noise.py.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import sys
from collections.abc import Sequence
from pathlib import Path

from suites.cli.command_line import CommandParser, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.records.results_folder import read_records
from suites.records.value_types import BadRecord
from suites.schema.config import RunConfig
from suites.schema.refusals import Refused
from suites.statistics.noise import FILE, LEAST, studies, to_text


def main(arguments: Sequence[str]) -> int:
    """Write the file. Return 0, or 2 if the command was refused."""

    def write() -> int:
        results = _parser().parse_args(arguments).results
        try:
            made = studies(read_records(results, "latency"))
        except BadRecord as error:
            raise Refused(f"{error}; move the file away") from None
        if not made:
            raise Refused(f"{results} has no study; give a folder with records of at least {LEAST} processes")
        FILE.write_text(to_text(made), encoding="utf-8")
        print(f"{FILE}: {len(made)} studies")
        return 0

    return run_guarded(write)


def _parser() -> CommandParser:
    parser = CommandParser(
        "process-noise",
        "Calculate from records how much times differ between processes.\n\n"
        f"It reads the latency records that have at least {LEAST} equal processes.\n"
        "Output: the file suites/statistics/process_noise.json, which tables use to judge rows of one process.",
        ("results/reference", RunConfig.results),
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="folder of records, such as results/reference")
    return parser


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
