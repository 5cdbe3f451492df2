"""Name the cheapest strategy for a trace of requests: `python -m suites.advise TRACE [--memory-mb N] [key=value ...]`.

Strategies are the records of suite=switching in `results=`. Key=value arguments select among them. The command prints
the cost of each strategy, and the cheapest strategy with its margin and confidence. It writes a plot of cost against
switching for each precision to RESULTS/MACHINE/plots/switching-MODEL-PRECISION.svg.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from suites.asking.user_folders import default_folder
from suites.cli.command_line import CommandParser, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.records.record import Record
from suites.records.results_folder import folders_to_read
from suites.schema.config import RunConfig
from suites.schema.refusals import Refused, nearest, shortened
from suites.statistics.validity import Judged, judged
from suites.statistics.winners import ties
from suites.switching.costs import RESAMPLES, Costs, Trace
from suites.switching.plot_files import NO_SCORES, usable_records, write_plots
from suites.switching.result import Size
from suites.switching.strategy_names import StrategyNames
from suites.switching.tables import costs_of, workload
from suites.switching.traffic import fitting_shape, read_trace
from suites.tables.markdown import markdown
from suites.tables.write_tables import print_bad_records

WORKLOAD_KEYS = ("model", "weights", "lengths", "shapes", "requests")
"""Names of the values of `workload`. Strategies are compared only if all of these are the same."""

KEYS = {
    "results": f"Folder of the records. Default: {RunConfig.results}.",
    "machine": "Any part of the name of the machine.",
    "backend": "Name of the backend.",
    "precision": "Name of the precision.",
    "model": "Name of the model.",
    "model_version": "Version of the model, where a name has several versions.",
    "weights": "Weights of the model: trained or random.",
    "lengths": "Distribution of the sequence lengths.",
    "shapes": "Shapes of the requests, as refusals print them.",
    "requests": "Requests of the traces, as refusals print them.",
}
"""Keys that select records, with their help."""


@dataclass(frozen=True)
class Advice:
    """Predicted cost of a trace with one strategy.

    Attributes:
        costs: measured costs; None if the strategy was not measured.
        nanoseconds: mean time of a request.
        memory: bytes of device memory; None if unknown.
        against: why the strategy cannot be chosen; empty if it can.
    """

    name: str
    costs: Costs | None
    nanoseconds: float
    memory: float | None
    excluded_because: str = ""


def advise(
    records: Sequence[Record], trace: Sequence[Size], memory: float = float("inf"), scores: Judged = NO_SCORES
) -> list[Advice]:
    """Rank all strategies: those that can be chosen first, the cheapest at the top.

    Args:
        memory: bytes of device memory that may be used.
        scores: accuracy scores of tasks; a strategy that fails a task cannot be chosen.
    """
    names, advices = StrategyNames(records), []
    for record in records:
        strategies = costs_of(record, scores)
        advices += [_advice(costs, names.of(record, costs.cuda_graph), trace, memory) for costs in strategies]
        if not strategies:
            against = f"{record.outcome}: {record.reason}"
            advices.append(Advice(names.of(record, False), None, float("inf"), None, against))
    return sorted(advices, key=lambda advice: (bool(advice.excluded_because), advice.nanoseconds))


def _advice(costs: Costs, name: str, trace: Sequence[Size], budget: float) -> Advice:
    used = _memory(costs)
    try:
        time, against = float(costs.means.of_trace(trace_in_built_shapes(costs, trace))) / len(trace), ""
    except ValueError as error:
        time, against = float("inf"), str(error)
    if costs.output_faults:
        against = f"its outputs are wrong: {costs.output_faults}"
    if costs.measured_once:
        against = "each change of shape was measured only once"
    if used is None and budget < float("inf"):
        against = against or "its device memory is unknown, so it cannot be compared with the budget"
    if used is not None and used > budget:
        against = f"needs {used / 1e6:,.0f} MB of device memory; the budget is {budget / 1e6:,.0f} MB"
    return Advice(name, costs, time, used, against)


def confidence(best: Advice, others: Sequence[Advice], trace: Sequence[Size]) -> float:
    """Return the share of bootstrap resamples in which `best` is still the cheapest."""
    times = []
    for seed, advice in enumerate((best, *others)):
        assert advice.costs is not None
        times.append(advice.costs.resampled(seed=seed).of_trace(trace_in_built_shapes(advice.costs, trace)))
    return float(np.mean(times[0] <= np.min(times, axis=0)))


def trace_in_built_shapes(costs: Costs, trace: Sequence[Size]) -> Trace:
    """Return the trace in the built shapes of a strategy.

    Raises:
        ValueError: a request fits into none of these shapes.
    """
    built = {request: costs.shapes[fitting_shape(request, costs.shapes)] for request in dict.fromkeys(trace)}
    return Trace.of([built[request] for request in trace])


def _memory(costs: Costs) -> float | None:
    """Return the device memory of the process in bytes; None if unknown.

    It is the median over replays, because a single reading may include memory that the suite itself uses.
    """
    readings = [m.telemetry.memory_bytes for m in costs.record.measurements if m.cuda_graph == costs.cuda_graph]
    sizes = [size for size in readings if size]
    return float(np.median(sizes)) if sizes else None


def select_records(records: Iterable[Record], choices: Mapping[str, str]) -> list[Record]:
    """Return the records that match the chosen model, precision, ...

    Raises:
        Refused: no record matches, or the records are of several machines, models or sets of requests.
    """
    kept = list(records)
    for key, choice in choices.items():
        available = sorted({_value(record, key) for record in kept})
        kept = [record for record in kept if _matches(choice, key, _value(record, key))]
        if not kept:
            raise Refused(
                f"no record of suite=switching has {key}={choice}; available: {', '.join(available) or 'none'}"
            )
    for key in ("machine", *WORKLOAD_KEYS, "model_version"):
        values = sorted({_value(record, key) for record in kept})
        if len(values) > 1:
            raise Refused(f"the records have several values of {key}: {', '.join(values)}; choose one with {key}=")
    if not any(record.result for record in kept):
        raise Refused("no record of suite=switching matches; run suite=switching first, see README.md")
    return kept


def _matches(choice: str, key: str, value: str) -> bool:
    """Return whether a value matches a choice. A part of the name is enough for a machine."""
    return choice in value if key == "machine" else choice == value


def _value(record: Record, key: str) -> str:
    if key == "machine":
        return record.environment.machine
    return dict(zip(WORKLOAD_KEYS, workload(record), strict=True)).get(key) or str(getattr(record.cell, key, ""))


def report(advices: Sequence[Advice], trace: Sequence[Size]) -> str:
    """Return the ranking as a markdown table, and the advice in a short text."""
    share = sum(Trace.of(trace).changes.values()) / max(len(trace) - 1, 1)
    rows = [
        [
            advice.name,
            "" if advice.excluded_because else f"{advice.nanoseconds / 1e6:.3f}",
            "" if advice.excluded_because else f"{1e9 / advice.nanoseconds:,.0f}",
            "unknown" if advice.memory is None else f"{advice.memory / 1e6:,.0f}",
            advice.excluded_because,
        ]
        for advice in advices
    ]
    lines = [f"{len(trace)} requests. {share:.1%} of them have another shape than the request before.", ""]
    lines += [markdown(("strategy", "ms per request", "requests/s", "device MB", "cannot be chosen because"), rows), ""]
    possible = [advice for advice in advices if not advice.excluded_because]
    if not possible:
        return "\n".join([*lines, "No strategy can serve this trace."])
    best, *others = possible
    if not others:
        return "\n".join([*lines, f"Use {best.name}. It is the only strategy that can serve this trace."])
    margin = 1 - best.nanoseconds / others[0].nanoseconds
    share_cheapest = confidence(best, others, trace)
    tied = _tied(best, others)
    advice = (
        f"Use {best.name}. It is {margin:.1%} cheaper than {others[0].name}. It is the cheapest in "
        f"{share_cheapest:.0%} of {RESAMPLES} bootstrap resamples of the measurements of one process."
    )
    if tied:
        advice += f" Its lead over {', '.join(tied)} is within the spread between processes: they are equally good."
    return "\n".join([*lines, advice, *_misfit(best, others[0], margin)])


def _tied(best: Advice, others: Sequence[Advice]) -> list[str]:
    """Return the strategies that are slower only within the spread between processes."""
    times = [(a.costs.record, a.costs.cuda_graph, a.nanoseconds) for a in (best, *others) if a.costs]
    return [others[index - 1].name for index in ties(times, 0)]


def _misfit(best: Advice, other: Advice, margin: float) -> list[str]:
    """Return a warning if the model's error against replays is larger than the margin between two strategies."""
    assert best.costs is not None
    assert other.costs is not None
    error = np.fmax(best.costs.model_error, other.costs.model_error)
    if not error > margin:
        return []
    return [f"Measured replays differ from the predicted times by up to {error:.1%}, which is more than this margin. "
            "Replay this trace with both strategies (switching.trace=) before you choose."]  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Print advice. Return 0, 1 if no strategy can serve the trace, or 2 if the command was refused."""

    def run() -> int:
        options = _parser().parse_intermixed_args(arguments)
        return _advise(options.trace, options.memory_mb * 1e6, options.choices)

    return run_guarded(run)


def _parser() -> CommandParser:
    parser = CommandParser(
        "advise",
        "Name the cheapest strategy for a trace of requests of several shapes.\n\n"
        "Strategies are the records of suite=switching. Output: the cost of each strategy, and the cheapest strategy\n"
        "with its margin and confidence. For each precision, a plot of cost against switching is written.\n"
        "Exit status: 0 a strategy can serve the trace, 1 no strategy can, 2 the command was refused.",
        (
            "suites/conf/traces/mixed.txt --memory-mb 8000",
            "suites/conf/traces/mixed.txt results=results/reference machine=h200 precision=fp16",
        ),
    )
    parser.add_argument(
        "trace",
        metavar="TRACE",
        help="file with one request per line: a batch size and a sequence length, such as 8 128",
    )
    parser.add_argument(
        "choices", nargs="*", default=[], metavar="key=value", help="selects records; the keys are listed below"
    )
    parser.add_argument_group("limits").add_argument(
        "--memory-mb",
        type=float,
        default=float("inf"),
        metavar="N",
        help="available device memory in MB; default: no limit",
    )
    width = max(map(len, KEYS)) + 3
    parser.add_argument_group("keys", "\n".join(f"{f'{key}=':<{width}}{text}" for key, text in KEYS.items()))
    return parser


def _advise(path: str, memory: float, choices: Sequence[str]) -> int:
    choices_by_key = dict(choice.partition("=")[::2] for choice in choices)
    results = Path(choices_by_key.pop("results", "") or default_folder("results"))
    if bare := [choice for choice in choices if "=" not in choice]:
        raise Refused(f"{shortened(bare[0])!r} is not of the form key=value; choices: {', '.join(KEYS)}")
    if unknown := sorted(set(choices_by_key) - set(KEYS)):
        near = nearest(unknown[0], KEYS)
        hint = f"did you mean {near}? ({KEYS[near]}) " if near else ""
        raise Refused(f"there is no key {shortened(unknown[0])}; {hint}choices: {', '.join(KEYS)}")
    if not memory >= 0:
        raise Refused(f"--memory-mb={memory / 1e6:g} must be at least 0")
    folders = {folder.name: folder for folder in folders_to_read(results)}
    try:
        trace = [size for _, size in read_trace(path)]
        if not any(folder.records("switching") for folder in folders.values()):
            raise Refused(
                f"{results} has no records of suite=switching; run suite=switching first, or choose "
                "results=results/reference"
            )
        records = select_records(
            (record for folder in folders.values() for record in usable_records(folder)), choices_by_key
        )
        folder = folders[records[0].environment.machine]
        scores = judged(folder.records("accuracy"))
        advices = advise(records, trace, memory, scores)
        print(report(advices, trace))
        for plot in write_plots(records, folder.plots, scores):
            print(f"\nPlot of cost against switching probability: {plot}")
    except (OSError, ValueError) as error:  # Refused is a ValueError.
        print_bad_records(folders.values())
        raise Refused(str(error)) from None
    return int(print_bad_records(folders.values()) > 0 or all(advice.excluded_because for advice in advices))


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
