"""Write the tables of a results folder from its records: `python -m suites.report [RESULTS]`.

The tables of each machine are written to RESULTS/MACHINE/tables. The default of RESULTS is that of the key results.
With --csv, --jsonl or --parquet the command writes rows of data instead; see suites/data_out/data_command.py.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import sys
from collections.abc import Sequence
from pathlib import Path

from backends.atomic_file import write_atomically
from suites.asking.user_folders import default_folder
from suites.choosing.results_index import results_index
from suites.cli.command_line import CommandParser, program, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.data_out.data_command import add_data_options, wants_data, write_data
from suites.records.results_folder import machine_folders
from suites.schema.config import RunConfig
from suites.schema.refusals import Refused
from suites.tables.write_tables import print_bad_records, print_unknown_fields, write_tables

INDEX = "index.md"
"""File with the index of a results folder."""


def main(arguments: Sequence[str]) -> int:
    """Write the tables and print their paths. Return 0, 1 if a file is not a record, or 2 if there are no records."""

    def write() -> int:
        options = _parser().parse_args(arguments)
        given = options.results
        results = Path(given or default_folder("results"))
        if given and "=" in given and not results.exists():
            raise Refused(f"{given} is not a folder; write {program('report')} {given.partition('=')[2]}")
        if wants_data(options):
            return write_data(options)
        if not machine_folders(results):
            raise Refused(f"{results} has no records (MACHINE/records/SUITE/*.json); give a folder that runs wrote to")
        written, folders = write_tables(results)
        write_atomically(results / INDEX, f"# Results\n\n{results_index(folders, results)}\n")
        written.append(results / INDEX)
        print("\n".join(map(str, written)))
        print_unknown_fields(folders)
        return int(print_bad_records(folders) > 0)

    return run_guarded(write)


def _parser() -> CommandParser:
    parser = CommandParser(
        "report",
        "Write the tables of a results folder from its records, and print the paths of the tables.\n\n"
        "The tables of each machine are written to RESULTS/MACHINE/tables. With --csv, --jsonl or --parquet, the\n"
        "command writes one row of data for each cell and shape to a file instead.\n"
        "Exit status: 0 all records were read, 1 a file was left out, 2 the command was refused.",
        ("", "results/reference", "results/reference --csv rows.csv --parquet rows.parquet"),
    )
    parser.add_argument("results", nargs="?", metavar="RESULTS", help=f"folder of results; default {RunConfig.results}")
    add_data_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
