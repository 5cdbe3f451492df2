"""Name the cheapest serving configuration for a load and a latency bound: `python -m suites.capacity`.

The command reads records of suite=serving and measures nothing. Loads beyond one device are simulated.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from backends.inputs.lengths import Lengths
from suites.asking.resolve_lengths import resolve_lengths
from suites.asking.user_folders import default_folder
from suites.cli.command_line import CommandParser, overrides, run_guarded
from suites.cli.composing import checked_config, composed
from suites.cli.local_settings import register
from suites.cli.output import run_with_tolerant_output
from suites.records.record import Record
from suites.records.results_folder import folders_to_read
from suites.schema.config import RunConfig
from suites.schema.refusals import Refused, no_such_choice, positive, shortened
from suites.serving.capacity_plan import PERCENTILES, Demand, plan, shortest_latency
from suites.serving.capacity_text import Advice, Prices
from suites.tables.markdown import digits, machine_title
from suites.tables.write_tables import print_bad_records


def main(arguments: Sequence[str]) -> int:
    """Print the advice. Return 0, 1 if no record carries the load, or 2 if the command was refused."""
    return run_guarded(lambda: _run(_parser().parse_intermixed_args(arguments)))


def _parser() -> CommandParser:
    parser = CommandParser(
        "capacity",
        "Name the cheapest serving configuration for a load and a latency bound.\n\n"
        "The command reads records of suite=serving. For a load that one device does not carry, it simulates several\n"
        "devices from the measured times of batches. Records must have requests at random times\n"
        "(serving.arrivals=poisson).\n"
        "Output: for each configuration, the cheapest one first, the number of devices, the margin (the load that\n"
        "they carry beyond R, as a share of R), the cost of a million requests and the record. For the cheapest one\n"
        "also the command that deploys it.\n"
        "Exit status: 0 a configuration was found, 1 there is none, 2 the command was refused.",
        (
            "--load 2000 --bound-ms 10",
            "--load 50000 --bound-ms 10 --model minilm --price h100=2.5 --price h200=3.5 lengths=stsb",
        ),
    )
    parser.add_argument("--load", type=float, required=True, metavar="R", help="requests per second")
    parser.add_argument("--bound-ms", type=float, required=True, metavar="MS", help="latency bound in ms")
    parser.add_argument(
        "--percentile", type=float, default=99.0, metavar="P",
        help="percentile of latencies within the bound: 50, 90, 99 (default) or 99.9",
    )  # fmt: skip
    parser.add_argument(
        "--price", action="append", default=[], metavar="[M=]P",
        help="price of an hour of a device, or of one with M in the name of its machine; may be given several times",
    )  # fmt: skip
    parser.add_argument("--machine", default="", metavar="M", help="any part of the name of the machine")
    parser.add_argument("--model", default="", metavar="M", help="name of the model")
    parser.add_argument("--records", metavar="DIR", help=f"folder of results; default {RunConfig.results}")
    parser.add_argument(
        "words", nargs="*", default=[], metavar="lengths=NAME",
        help="distribution of the lengths of requests, as for the command run, if records have several",
    )  # fmt: skip
    return parser


def _run(options: argparse.Namespace) -> int:
    demand = _demand(options)
    prices, lengths = _prices(options.price), _lengths(options.words)
    results = Path(options.records or default_folder("results"))
    folders = folders_to_read(results)
    records = [record for folder in folders for record in folder.records("serving")]
    if not records:
        print_bad_records(folders)
        raise Refused(
            f"{results} has no records of suite=serving; measure some with python -m suites.run suite=serving, or give "
            "another folder as --records"
        )
    chosen = _selected(records, options, lengths)
    configurations = plan(chosen, demand)
    if configurations:
        print(Advice(demand, configurations, prices, options.records or "").text())
    else:
        print(_nothing(chosen, demand))
    print_bad_records(folders)
    return int(not configurations)


def _demand(options: argparse.Namespace) -> Demand:
    if options.percentile not in PERCENTILES:
        raise Refused(f"--percentile={options.percentile:g} is not one of {', '.join(f'{p:g}' for p in PERCENTILES)}")
    load, bound = positive("--load", options.load), positive("--bound-ms", options.bound_ms)
    return Demand(load, bound, options.percentile)


def _prices(words: Iterable[str]) -> Prices:
    general: float | None = None
    by_machine: list[tuple[str, float]] = []
    for word in words:
        name, _, number = word.rpartition("=")
        try:
            price = positive(f"--price {name or 'of a device'}", float(number))
        except ValueError as error:
            if isinstance(error, Refused):
                raise
            raise Refused(f"--price={shortened(word)} is not a price; write e.g. 2.5 or h100=2.5") from None
        if name:
            by_machine.append((name.lower(), price))
        else:
            general = price
    return Prices(general, tuple(by_machine))


def _lengths(words: Sequence[str]) -> Lengths | None:
    """Return the distribution that the words name; None without words."""
    if other := [word for word in words if not word.startswith(("lengths=", "lengths."))]:
        raise Refused(f"{shortened(other[0])!r} is not a key of lengths; write e.g. lengths=stsb")
    if not words:
        return None
    register()
    return resolve_lengths(checked_config(composed(overrides(words))))


def _selected(records: Sequence[Record], options: argparse.Namespace, lengths: Lengths | None) -> list[Record]:
    """Return the records of one model and one distribution of lengths.

    Raises:
        Refused: no record is of this machine, model or distribution, or records have several of them.
    """
    chosen = [record for record in records if options.machine.lower() in machine_title(record).lower()]
    if not chosen:
        raise Refused(no_such_choice("--machine", options.machine, sorted({*map(machine_title, records)})))
    models = sorted({record.cell.model for record in chosen})
    if options.model not in models and (options.model or len(models) > 1):
        if options.model:
            raise Refused(no_such_choice("--model", options.model, models))
        raise Refused(f"records have several models; add --model with one of {', '.join(models)}")
    chosen = [record for record in chosen if options.model in ("", record.cell.model)]
    if lengths is not None:
        chosen = [record for record in chosen if lengths.settings().items() <= record.cell.lengths.items()]
        if not chosen:
            raise Refused("no record has these lengths; see the commands of the records with python -m suites.report")
    keys = set(Lengths("histogram").settings()) | set(Lengths("lognormal").settings())
    different = {repr([(key, record.cell.lengths.get(key)) for key in sorted(keys)]) for record in chosen}
    if len(different) > 1:
        raise Refused(f"records have {len(different)} distributions of lengths; add one of them, such as lengths=stsb")
    return chosen


def _nothing(records: Sequence[Record], demand: Demand) -> str:
    """Return one line that says that no record has a load within the bound, and the smallest measured latency."""
    line = f"No record has a load with {demand.percentile:g}% of latencies within {demand.bound_ms:g} ms"
    shortest = shortest_latency(records, demand)
    if shortest is None:
        return f"{line}: none has enough requests at random times; raise suite.seconds."
    return f"{line}: the smallest measured value is {digits(shortest)} ms; give a longer --bound-ms."


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
