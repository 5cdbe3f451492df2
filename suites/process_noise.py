"""Calculate from records how much times differ between equal processes: `python -m suites.process_noise RESULTS`.

The command writes suites/process_noise.json, which tables use for rows of one process. See suites/statistics/noise.py.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import sys
from collections.abc import Sequence
from pathlib import Path

from suites.cli.command_line import CommandParser, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.records.record_checks import BadRecord
from suites.records.results_folder import read_records
from suites.schema.refusals import Refused
from suites.statistics.noise import FILE, LEAST, studies, to_text


def main(arguments: Sequence[str]) -> int:
    """Write the file. Return 0, or 2 if the command was refused."""
    parser = CommandParser(
        "process-noise",
        "Calculate from records how much times differ between processes, and write suites/process_noise.json.\n\n"
        f"It reads the latency records that have at least {LEAST} equal processes. Tables use the file to judge rows\n"
        "that were measured in one process.",
        ("results/reference", "results/runs"),
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="folder of records, such as results/reference")

    def write() -> int:
        options = parser.parse_args(arguments)
        try:
            noise_studies = studies(read_records(options.results, "latency"))
        except BadRecord as error:
            raise Refused(f"{error}; move the file away") from None
        if not noise_studies:
            raise Refused(f"{options.results} has no study; give a folder with records of at least {LEAST} processes")
        FILE.write_text(to_text(noise_studies), encoding="utf-8")
        print(f"{FILE}: {len(noise_studies)} studies")
        return 0

    return run_guarded(write)


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
