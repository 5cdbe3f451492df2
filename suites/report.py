"""Write the tables of a results folder from its records: `python -m suites.report [RESULTS]`.

The tables of each machine are written to RESULTS/MACHINE/tables, and plots to RESULTS/MACHINE/plots.
With --html the command writes one HTML file instead; with --csv, --jsonl or --parquet it writes rows of data, see
suites/data_out/data_command.py. The default of RESULTS is that of the key results.
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
from suites.cli.command_line import CommandParser, add_rank_option, program, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.data_out.data_command import add_data_options, wants_data, write_data
from suites.html_report.page import FILE, write_page
from suites.records.results_folder import check_results_folder, machine_folders
from suites.schema.config import RunConfig
from suites.schema.enums import Rank
from suites.schema.refusals import Refused
from suites.tables.suite_plots import write_suite_plots
from suites.tables.write_tables import print_bad_records, print_unknown_fields, write_tables

INDEX = "index.md"
"""File with the index of a results folder."""


def main(arguments: Sequence[str]) -> int:
    """Write the tables and print their paths. Return 0, 1 if a file is not a record, or 2 if there are no records."""

    def write() -> int:
        options = _parser().parse_args(arguments)
        given = options.results
        if options.output and not options.html:
            raise Refused("--output names the file of --html; add --html")
        results = Path(given or default_folder("results"))
        if given and "=" in given and not results.exists():
            raise Refused(f"{given} is not a folder; write {program('report')} {given.partition('=')[2]}")
        if options.html and wants_data(options):
            raise Refused("--html and the options of data are alternatives; run the command once for each")
        if wants_data(options):
            return write_data(options)
        check_results_folder(results)
        if options.html:
            folders = machine_folders(results)
            written = [write_page(folders, Path(options.output or results / FILE), Rank[options.rank])]
        else:
            written, folders = write_tables(results, Rank[options.rank])
            written += [plot for folder in folders for plot in write_suite_plots(folder)]
            write_atomically(results / INDEX, f"# Results\n\n{results_index(folders, results)}\n")
            written.append(results / INDEX)
        print("\n".join(map(str, written)))
        print_unknown_fields(folders)
        return int(print_bad_records(folders) > 0)

    return run_guarded(write)


def _parser() -> CommandParser:
    parser = CommandParser(
        "report",
        "Write the tables of a results folder from its records, and print the paths of the files.\n\n"
        "Output: the tables of each machine in RESULTS/MACHINE/tables, and its plots in RESULTS/MACHINE/plots.\n"
        "With --html it is one HTML file for a browser instead. With --csv, --jsonl or --parquet, it is a file with\n"
        "one row of data for each cell and shape.\n"
        "Exit status: 0 all records were read, 1 a file was left out, 2 the command was refused.",
        (
            "",
            "results/reference",
            "--html results/reference --output report.html",
            "results/reference --csv rows.csv --parquet rows.parquet",
        ),
    )
    parser.add_argument("results", nargs="?", metavar="RESULTS", help=f"folder of results; default {RunConfig.results}")
    add_rank_option(parser)
    page = parser.add_argument_group("page")
    page.add_argument("--html", action="store_true", help="write one HTML file with plots instead of the tables")
    page.add_argument("--output", metavar="FILE", help=f"the HTML file; default RESULTS/{FILE}")
    add_data_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
