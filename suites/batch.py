"""Run many cells from a file on all GPUs in a given time: `python -m suites.batch FILE`.

FILE has one cell or sweep per line, as typed after `python -m suites.run`. Text after # is a comment. Lines run in the
order of the file. A sweep is split into its cells. Each GPU takes A engines (--ahead) and builds N of them at the same
time (--builders). Then it scores the outputs of accuracy cells, up to N cells at the same time, and measures the other
cells one after another. With --measuring, the last M GPUs only measure and the other GPUs only build, first for the
backends without an engine. No engine is started after --seconds. Started engines are finished, and the same command
continues later with the built engines. Key=value arguments are added to every line.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from suites.batch_runs.engine_schedule import Batch, Division
from suites.batch_runs.gpu_lines import cells_without_gpu, line_numbers
from suites.batch_runs.line_processes import LineProcesses
from suites.cli.batch_file import Line, batch_file, group_by_engine, numbered_commands, read_cells
from suites.cli.command_line import CommandParser, overrides, run_guarded
from suites.cli.hydra_errors import check_keys
from suites.cli.output import run_with_tolerant_output
from suites.cli.plan_invocation import print_plan
from suites.measuring.clock import now_ns
from suites.measuring.machine import gpu_uuids
from suites.root import CONF
from suites.running.batch_gpus import BatchGpus
from suites.schema.refusals import Refused, at_least
from suites.tables.touched import tables_at_end


def main(arguments: Sequence[str]) -> int:
    """Run the batch. Return 0, 1 if a started line failed, or 2 if the batch was refused."""

    def run() -> int:
        parser = _parser()
        options, unknown = parser.parse_known_args(arguments)
        common = [*options.words, *unknown]
        parser.refuse_options(common)
        check_keys(common)
        return _run(options, overrides(common))

    return run_guarded(lambda: tables_at_end(run))


def _parser() -> CommandParser:
    parser = CommandParser(
        "batch",
        "Run many cells from a file on all GPUs in a given time, and write their tables at the end.\n\n"
        "FILE has one cell or sweep per line: the arguments of the command run. Text after # is a comment. Lines run\n"
        "in the order of the file. On a machine without a GPU, they run on the CPU, and lines that need a GPU do not\n"
        "start. The same command continues a batch that was stopped, with the engines that were built.\n"
        "Output: a line for each cell, with its number, its seconds, its outcome and the path of its record, then the\n"
        "lines that failed, and the tables. Records and tables are files below the folder of results=.\n"
        "Exit status: 0 all started lines ended well, 1 a line failed or needs a GPU that is not there, 2 the batch\n"
        "was refused, or with --plan a cell.",
        (
            "tensorrt_grid --builders 4 --seconds 3600",
            "my_cells.txt --ahead 20 suite.warm_up_s=0.5 results=results/mine",
            "my_cells.txt --plan",
        ),
    )
    own = ", ".join(sorted(file.stem for file in (CONF / "batches").glob("*.txt")))
    parser.add_argument("file", type=Path, metavar="FILE", help=f"a file, or the name of a batch of the project: {own}")
    parser.add_argument(
        "words",
        nargs="*",
        default=[],
        metavar="key=value",
        help="a group or a key of the command run, added to every line",
    )
    building = parser.add_argument_group("building")
    building.add_argument(
        "--builders", type=int, default=1, metavar="N",
        help="number of engines that each GPU builds at the same time; default 1. With 0 or 1, and without --ahead, "
        "each cell builds its own engine just before it is measured",
    )  # fmt: skip
    building.add_argument(
        "--ahead", type=int, metavar="A", help="number of engines that a GPU builds before it measures; default N"
    )
    measuring = parser.add_argument_group("measuring")
    measuring.add_argument(
        "--measuring", type=int, default=0, metavar="M",
        help="number of GPUs that only measure the engines that the other GPUs build; default 0",
    )  # fmt: skip
    parser.add_argument_group("planning").add_argument(
        "--plan", action="store_true", help="print cells, engines, time and memory of the batch, and run nothing"
    )
    measuring.add_argument(
        "--seconds",
        type=float,
        default=float("inf"),
        metavar="S",
        help="start no engine after S seconds; default: no limit",
    )
    return parser


def _run(options: argparse.Namespace, common: Sequence[str]) -> int:
    if not options.seconds >= 0:
        raise Refused(f"--seconds must be at least 0, not {options.seconds:g}")
    file = batch_file(options.file)
    cells = read_cells(file)
    if not cells:
        raise Refused(
            f"{options.file} has no lines; write one cell or sweep per line, with the arguments of python -m suites.run"
        )
    uuids = gpu_uuids()
    devices = [str(index) for index, _ in enumerate(uuids)] or [""]
    division = _division(options, len(devices))
    if options.plan:
        commands = (([*words, *common], f"line {number}") for number, words in numbered_commands(file))
        return print_plan(commands, len(devices))
    end_ns = now_ns() + options.seconds * 1e9
    missing = [] if uuids else _without_gpu(cells, common)
    lines = [cell[1] for cell in cells if cell not in missing]
    processes = LineProcesses(common, cells=len(lines), gpus=BatchGpus(uuids, gpu_uuids))
    Batch(processes, end_ns).run(group_by_engine(lines), devices, division)
    for text in (*(shlex.join(line) for _, line in missing), *processes.failed):
        print(f"failed: {text}")
    return int(bool(missing or processes.failed))


def _division(options: argparse.Namespace, devices: int) -> Division:
    """Return the work of the devices. Raise Refused for numbers that do not fit."""
    at_least("--builders", options.builders, 0)
    at_least("--measuring", options.measuring, 0)
    if options.ahead is not None:
        at_least("--ahead", options.ahead, 1)
    if options.measuring and (options.measuring >= devices or options.builders < 1):
        raise Refused(
            f"--measuring {options.measuring} needs another device that builds, and --builders of at least 1; "
            f"there are {devices} devices"
        )
    return Division(options.builders, options.ahead or max(1, options.builders), options.measuring)


def _without_gpu(cells: Sequence[tuple[int, Line]], common: Sequence[str]) -> list[tuple[int, Line]]:
    """Return the cells that need a GPU, and print the numbers of their lines in one line.

    Raises:
        Refused: all cells need one.
    """
    missing = cells_without_gpu(cells, common)
    if not missing:
        return missing
    reason = "no NVIDIA GPU is visible here (nvidia-smi must list it)"
    if len(missing) == len(cells):
        raise Refused(f"{reason}, and every line needs one; run the batch on a machine with a GPU")
    count = f"{len(missing)} cell{'' if len(missing) == 1 else 's'}"
    print(f"not started: {count} of {line_numbers(missing)}: {reason}; the other lines run", flush=True)
    return missing


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
