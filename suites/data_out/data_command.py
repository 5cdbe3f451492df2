"""The options of `python -m suites.report` that write data: --csv, --jsonl, --parquet, --trtexec, --trtexec-command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from suites.asking.user_folders import default_folder
from suites.cli.output import write_output
from suites.data_out.data_row import DataRow
from suites.data_out.frames import optional_library, parquet_of
from suites.data_out.loaded_records import selected_records
from suites.data_out.text_files import csv_of, jsonl_of
from suites.data_out.tool_commands import tool_commands
from suites.data_out.trtexec_times import TrtexecFile, trtexec_row
from suites.schema.enums import Rank
from suites.schema.refusals import Refused, shortened
from suites.tables.write_tables import print_bad_records, print_unknown_fields

FORMATS: dict[str, Callable[[Sequence[DataRow]], str | bytes]] = {
    "csv": csv_of,
    "jsonl": jsonl_of,
    "parquet": parquet_of,
}
"""Content of a file, by the name of its option."""

STANDARD_OUTPUT = "-"

LARGEST_SIZE = 1_000_000
"""Largest batch and sequence length of a file of trtexec."""


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this module to a parser with the argument RESULTS."""
    data = parser.add_argument_group("data instead of tables")
    data.add_argument("--csv", metavar="FILE", help="write one row per cell and shape as CSV; - is standard output")
    data.add_argument("--jsonl", metavar="FILE", help="write the rows as JSON lines; - is standard output")
    data.add_argument("--parquet", metavar="FILE", help="write the rows as Parquet; needs pyarrow")
    data.add_argument("--machine", metavar="NAME", help="only machines with NAME in their name")
    data.add_argument("--suite", metavar="NAME", help="only rows of this suite: latency or accuracy")
    trtexec = parser.add_argument_group("trtexec")
    trtexec.add_argument("--trtexec", metavar="FILE", help="add the times that trtexec --exportTimes=FILE wrote")
    trtexec.add_argument("--label", metavar="NAME", help="name of these times in the column label")
    trtexec.add_argument("--batch", type=int, metavar="N", help="sequences of a batch that trtexec ran")
    trtexec.add_argument("--sequence", type=int, metavar="N", help="length in tokens that trtexec ran")
    trtexec.add_argument(
        "--trtexec-command", metavar="CELL", help="print commands of trtexec and polygraphy for a cell of backend=trt"
    )


def wants_data(options: argparse.Namespace) -> bool:
    """Return whether an option of this module was given. Also refuse options that need another one.

    Raises:
        Refused: an option has no effect without another one.
    """
    for name in ("label", "batch", "sequence"):
        if getattr(options, name) is not None and options.trtexec is None:
            raise Refused(f"--{name} describes a file of trtexec; add --trtexec FILE, or leave it out")
    outputs = [name for name in FORMATS if getattr(options, name) is not None]
    if options.trtexec_command is not None:
        if others := [name for name in (*outputs, "trtexec", "machine", "suite") if getattr(options, name) is not None]:
            raise Refused(f"--trtexec-command prints commands and writes no data; leave out --{others[0]}")
        return True
    for name in ("trtexec", "machine", "suite"):
        if getattr(options, name) is not None and not outputs:
            raise Refused(f"--{name} is for exported data; add --csv FILE, --jsonl FILE or --parquet FILE")
    return bool(outputs)


def write_data(options: argparse.Namespace) -> int:
    """Write the requested files, or print the requested commands. Return 0, or 1 if a file is not a record.

    Raises:
        Refused: there are no such records, a library is missing, or a file cannot be written.
    """
    if options.trtexec_command is not None:
        print(tool_commands(options.trtexec_command, Path(options.results or default_folder("results"))))
        return 0
    outputs = {name: getattr(options, name) for name in FORMATS if getattr(options, name) is not None}
    _check_outputs(outputs)
    imported = [trtexec_row(_trtexec_file(options))] if options.trtexec is not None else []
    rows, bad = [], 0
    # Without RESULTS, --trtexec needs no records.
    if options.results or not imported:
        records = selected_records(
            Path(options.results or default_folder("results")), options.machine or "", options.suite, Rank[options.rank]
        )
        rows = records.rows()
        print_unknown_fields(records.folders)
        bad = print_bad_records(records.folders)
        if not rows:
            raise Refused("the chosen records have no rows; only records of suite latency or accuracy have rows")
    rows += imported
    for name, target in outputs.items():
        _write(name, target, FORMATS[name](rows))
    for target in outputs.values():
        if target != STANDARD_OUTPUT:
            print(target, file=sys.stderr if STANDARD_OUTPUT in outputs.values() else sys.stdout)
    return int(bad > 0)


def _trtexec_file(options: argparse.Namespace) -> TrtexecFile:
    if not options.label:
        raise Refused("--trtexec needs a name for its times; add --label NAME, e.g. --label trtexec-fp16")
    for name in ("batch", "sequence"):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= LARGEST_SIZE:
            raise Refused(f"--{name} {shortened(str(value))} must be between 1 and {LARGEST_SIZE}")
    return TrtexecFile(Path(options.trtexec), options.label, options.batch, options.sequence)


def _check_outputs(outputs: dict[str, str]) -> None:
    """Refuse targets that cannot be written, before records are read."""
    if outputs.get("parquet") == STANDARD_OUTPUT:
        raise Refused("--parquet - is not supported, because Parquet is not text; give a file such as rows.parquet")
    seen: dict[str, str] = {}
    for name, target in outputs.items():
        if not target:
            raise Refused(f"--{name} has no file; give one such as rows.{name}")
        other = seen.setdefault(target if target == STANDARD_OUTPUT else os.path.realpath(target), name)
        if other != name:
            raise Refused(f"--{other} and --{name} both write to {shortened(target)}; give two files")
        if target != STANDARD_OUTPUT and os.path.isdir(target):
            example = os.path.join(target, f"rows.{name}")
            raise Refused(f"--{name} {shortened(target)} is a folder; give a file such as {shortened(example)}")
    if "parquet" in outputs:
        optional_library("pyarrow", "--parquet")


def _write(name: str, target: str, content: str | bytes) -> None:
    if target == STANDARD_OUTPUT:
        if sys.stdout is None:
            raise Refused(f"--{name} -: standard output is closed; give a file")
        sys.stdout.write(str(content))
        return
    write_output(f"--{name}", Path(target), content)
