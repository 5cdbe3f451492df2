"""Name the fastest row of each workload and shape in a results folder: `python -m suites.choose`.

Limits on time, accuracy and memory exclude rows. The command reads records only and measures nothing.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from suites.asking.baseline import check_baseline
from suites.asking.user_folders import default_folder
from suites.choosing.choice_text import text, values
from suites.choosing.selection import Selection, parse_shape
from suites.cli.command_line import CommandParser, add_rank_option, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.latency.choice import choose
from suites.latency.limits import QUANTITIES, Limit
from suites.latency.ranking import Baseline, Ranking, rankings
from suites.records.record import Record
from suites.records.results_folder import MachineFolder, folders_to_read
from suites.schema.config import RunConfig
from suites.schema.enums import Rank
from suites.schema.refusals import Refused, at_least, between
from suites.statistics.validity import judged
from suites.tables.distinctions import sources_of
from suites.tables.write_tables import print_bad_records, rejected_cells

LIMITS = {
    "p50_ms": ("MS", "largest median time in ms, of a forward pass or, with --rank request, of a request"),
    "p99_ms": ("MS", "largest 99th percentile of this time in ms; it needs 200 samples"),
    "task_loss": ("LOSS", "largest loss of a task's metric against FP32; it needs records of suite=accuracy"),
    "cosine": ("C", "smallest cosine between the outputs and those of FP32, from -1 to 1"),
    "memory_mb": ("MB", "largest memory of the process in MB: device memory, or resident memory on a CPU"),
}
"""Metavariable and help of the option of each limit."""


def main(arguments: Sequence[str]) -> int:
    """Print the choices. Return 0, 1 if no shape has one or a file was left out, or 2 if the command was refused."""
    return run_guarded(lambda: _run(_parser().parse_args(arguments)))


def _parser() -> CommandParser:
    parser = CommandParser(
        "choose",
        "Name the fastest backend and precision for each machine, model and shape in a results folder.\n\n"
        "Output: the winner, the runner-up, the speed-up, the confidence and the command that measured the winner.\n"
        "Rows with wrong outputs are left out. With limits, only rows that meet all of them are compared.\n"
        "Exit status: 0 a row was chosen, 1 no row was chosen or a file was left out, 2 the command was refused.",
        ("", "--p50-ms 10 --task-loss 0.01", "--records results/reference --machine h200 --model minilm --shape 8x128"),
    )
    limits = parser.add_argument_group("limits")
    for name, (metavar, words) in LIMITS.items():
        limits.add_argument(f"--{name.replace('_', '-')}", type=float, metavar=metavar, help=words)
    add_rank_option(parser)
    selection = parser.add_argument_group("rows")
    selection.add_argument("--machine", default="", metavar="M", help="any part of the name of the machine")
    selection.add_argument("--model", default="", metavar="M", help="name of the model")
    selection.add_argument("--shape", default="", metavar="BxS", help="batch and sequence length, such as 8x128")
    selection.add_argument("--records", metavar="DIR", help=f"folder of results; default {RunConfig.results}")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--baseline", default=RunConfig.baseline, metavar="B/P",
        help="backend and precision that speed-ups refer to, such as ort/fp16; default %(default)s",
    )  # fmt: skip
    output.add_argument("--json", action="store_true", help="print a JSON list with one object for each shape")
    return parser


def _run(options: argparse.Namespace) -> int:
    limits = _limits(options)
    if options.shape:
        parse_shape(options.shape)
    folders, results = _folders(options.records)
    records = [record for folder in folders for record in _latency(folder)]
    if not records:
        print_bad_records(folders)
        raise Refused(f"{results} has no records of suite=latency; run some cells, or add --records results/reference")
    check_baseline(options.baseline, "--baseline ", {record.cell.backend for record in records})
    baseline = Baseline.parse(options.baseline)
    judging = [record for folder in folders for record in folder.records("accuracy")]
    rank = Rank[options.rank]
    ranked = [ranking for folder in folders for ranking in _rankings(folder, baseline, rank)]
    if not ranked:
        raise Refused(
            f"{results} has no record of suite=latency with a time; see the reasons with python -m suites.report"
        )
    choices = [
        choose(ranking, limits) for ranking in Selection(options.machine, options.model, options.shape).of(ranked)
    ]
    if options.json:
        print(json.dumps([values(choice, baseline, rank) for choice in choices], indent=1))
    else:
        print(text(choices, baseline, sources_of(judging), rank))
    left_out = print_bad_records(folders)
    return int(left_out > 0 or all(choice.winner is None for choice in choices))


def _limits(options: argparse.Namespace) -> list[Limit]:
    limits = []
    for name in QUANTITIES:
        value, option = getattr(options, name), f"--{name.replace('_', '-')}"
        if value is not None:
            limits.append(
                Limit(name, between(option, value, -1, 1) if name == "cosine" else at_least(option, value, 0))
            )
    return limits


def _folders(given: str | None) -> tuple[list[MachineFolder], Path]:
    """Return the machines of the results folder.

    Raises:
        Refused: the folder has no records.
    """
    results = Path(given or default_folder("results"))
    folders = folders_to_read(results)
    if not folders:
        raise Refused(
            f"{results} has no records (MACHINE/records/SUITE/*.json); "
            + ("give a folder that runs wrote to" if given else "run some cells, or add --records results/reference")
        )
    return folders, results


def _latency(folder: MachineFolder) -> list[Record]:
    """Return the latency records of a machine without cells that a search tried and did not choose."""
    rejected = rejected_cells(folder)
    return [record for record in folder.records("latency") if record.cell.id not in rejected]


def _rankings(folder: MachineFolder, baseline: Baseline, rank: Rank) -> list[Ranking]:
    return rankings(_latency(folder), judged(folder.records("accuracy")), baseline, rank)


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
