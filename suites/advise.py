"""Name the cheapest strategy for a trace of requests: `python -m suites.advise TRACE [--memory-mb N] [key=value ...]`.

Strategies are the records of suite=switching in `results=`. Key=value arguments select among them. The command prints
the cost of each strategy, and the cheapest strategy with its margin and confidence. It writes a plot of cost against
switching for each precision to RESULTS/MACHINE/plots/switching-MODEL-PRECISION.svg.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from suites.checks import Refused, nearest, shortened
from suites.command_line import CommandParser, guarded
from suites.output import tolerantly
from suites.record import Record
from suites.report import say_bad
from suites.results_folder import MachineFolder, machine_folders
from suites.switching_model import RESAMPLES, Costs, Trace
from suites.switching_names import Names
from suites.tables.rows import markdown
from suites.tables.switching import costs_of, workload
from suites.text import one_line
from suites.traffic import Size, read_trace, smallest
from suites.user_folders import default_folder
from suites.validity import Judged, judged
from suites.winners import ties

ASKED = ("model", "weights", "lengths", "shapes", "requests")
"""What `workload` gives: strategies compare where all of it is the same."""

KEYS = {
    "results": "Folder of the records. Default: results/runs.",
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

NOTHING_JUDGED: Judged = {}


@dataclass(frozen=True)
class Advice:
    """A strategy and what a trace would take with it.

    Attributes:
        costs: None where it was not measured.
        nanoseconds: a request, on average.
        memory: bytes of device memory at most; None where nothing is known of it.
        against: why it is no choice; empty if it is one.
    """

    name: str
    costs: Costs | None
    nanoseconds: float
    memory: float | None
    against: str = ""


def advise(
    records: Sequence[Record], trace: Sequence[Size], memory: float = float("inf"), scores: Judged = NOTHING_JUDGED
) -> list[Advice]:
    """All strategies, the cheapest that can be chosen first.

    Args:
        memory: bytes of device memory that there are.
        scores: of tasks, which say what outputs are of use.
    """
    names, found = Names(records), []
    for record in records:
        ways = costs_of(record, scores)
        found += [_of(one, names.of(record, one.cuda_graph), trace, memory) for one in ways]
        if not ways:
            against = f"{record.outcome}: {record.reason}"
            found.append(Advice(names.of(record, False), None, float("inf"), None, against))
    return sorted(found, key=lambda advice: (bool(advice.against), advice.nanoseconds))


def _of(one: Costs, name: str, trace: Sequence[Size], memory: float) -> Advice:
    taken = _memory(one)
    try:
        time, against = float(one.means.of_trace(held(one, trace))) / len(trace), ""
    except ValueError as error:
        time, against = float("inf"), str(error)
    if one.wrong:
        against = f"its outputs are wrong: {one.wrong}"
    if one.single:
        against = "each change was taken but once"
    if taken is None and memory < float("inf"):
        against = against or "nothing is known of its memory, so not that it is within the budget"
    if taken is not None and taken > memory:
        against = f"takes {taken / 1e6:,.0f} MB"
    return Advice(name, one, time, taken, against)


def confidence(best: Advice, others: Sequence[Advice], trace: Sequence[Size]) -> float:
    """Share of resamplings of all measurements in which `best` stays the cheapest."""
    times = []
    for seed, advice in enumerate((best, *others)):
        assert advice.costs is not None
        times.append(advice.costs.resampled(seed=seed).of_trace(held(advice.costs, trace)))
    return float(np.mean(times[0] <= np.min(times, axis=0)))


def held(costs: Costs, trace: Sequence[Size]) -> Trace:
    """The trace in the shapes that a strategy runs.

    Raises:
        ValueError: none of them holds a request.
    """
    runs = {wanted: costs.shapes[smallest(wanted, costs.shapes)] for wanted in dict.fromkeys(trace)}
    return Trace.of([runs[wanted] for wanted in trace])


def _memory(costs: Costs) -> float | None:
    """Device memory of the process, by the median over replays: a reading may fall on what the suite itself takes."""
    read = [m.telemetry.get("memory_bytes") for m in costs.record.measurements if m.cuda_graph == costs.cuda_graph]
    known = [size for size in read if size]
    return float(np.median(known)) if known else None


def chosen(records: Iterable[Record], wanted: Mapping[str, str]) -> list[Record]:
    """The records that are of the model, precision, ... asked for.

    Raises:
        Refused: there are none, or they are of several machines, models or sets of requests.
    """
    kept = list(records)
    for key, asked in wanted.items():
        there = sorted({_value(record, key) for record in kept})
        kept = [record for record in kept if _is(asked, key, _value(record, key))]
        if not kept:
            raise Refused(f"no record of suite=switching has {key}={asked}; there are {', '.join(there) or 'none'}")
    for key in ("machine", *ASKED, "model_version"):
        values = sorted({_value(record, key) for record in kept})
        if len(values) > 1:
            raise Refused(f"there are records of {', '.join(values)}; choose one with {key}=")
    if not any(record.scores for record in kept):
        raise Refused("no record of suite=switching is of what was asked for; run it first, see README.md")
    return kept


def _is(asked: str, key: str, value: str) -> bool:
    """A machine goes by any part of its name."""
    return asked in value if key == "machine" else asked == value


def _value(record: Record, key: str) -> str:
    if key == "machine":
        return str(record.environment["machine"])
    return dict(zip(ASKED, workload(record), strict=True)).get(key) or str(getattr(record.cell, key, ""))


def report(advices: Sequence[Advice], trace: Sequence[Size]) -> str:
    """The ranking in markdown, and the advice in one sentence."""
    share = sum(Trace.of(trace).changes.values()) / max(len(trace) - 1, 1)
    rows = [
        [a.name, "" if a.against else f"{a.nanoseconds / 1e6:.3f}", "" if a.against else f"{1e9 / a.nanoseconds:,.0f}",
         "unknown" if a.memory is None else f"{a.memory / 1e6:,.0f}", a.against]
        for a in advices
    ]  # fmt: skip
    lines = [f"{len(trace)} requests, {share:.1%} of them of another shape than the one before.", ""]
    lines += [markdown(("strategy", "ms a request", "requests/s", "MB", "no choice, because"), rows), ""]
    possible = [advice for advice in advices if not advice.against]
    if not possible:
        return "\n".join([*lines, "No strategy can serve this trace."])
    best, *others = possible
    if not others:
        return "\n".join([*lines, f"Use {best.name}: the only one that can serve this trace."])
    margin = 1 - best.nanoseconds / others[0].nanoseconds
    sure = confidence(best, others, trace)
    tied = _tied(best, others)
    advice = (
        f"Use {best.name}: {margin:.1%} cheaper than {others[0].name}; cheapest in {sure:.0%} of {RESAMPLES} "
        "resamplings of the measurements of one process."
    )
    if tied:
        advice += f" The spread between processes explains its lead over {', '.join(tied)}: they are as good a choice."
    return "\n".join([*lines, advice, *_misfit(best, others[0], margin)])


def _tied(best: Advice, others: Sequence[Advice]) -> list[str]:
    """The strategies whose lag the spread between processes explains."""
    times = [(one.costs.record, one.costs.cuda_graph, one.nanoseconds) for one in (best, *others) if one.costs]
    return [others[index - 1].name for index in ties(times, 0)]


def _misfit(best: Advice, other: Advice, margin: float) -> list[str]:
    """A line where what was replayed is further from what times and changes add up to than two strategies are apart."""
    assert best.costs is not None
    assert other.costs is not None
    apart = np.fmax(best.costs.misfit, other.costs.misfit)
    if not apart > margin:
        return []
    return [f"Their replays were up to {apart:.1%} from such sums, which is more than their margin: replay this trace "
            "with both (switching.trace=) before you choose."]  # fmt: skip


def write_plots(records: Sequence[Record], folder: Path, scores: Judged = NOTHING_JUDGED) -> list[Path]:
    """A plot for each precision that has strategies with right outputs."""
    from suites.tables.plot import plot

    paths = []
    for precision in sorted({record.cell.precision for record in records}):
        group = [record for record in records if record.cell.precision == precision]
        costs = [one for record in group for one in costs_of(record, scores) if one.counts and not one.single]
        if not costs:
            continue
        title = [_value(group[0], "machine"), group[0].cell.model, precision]
        paths.append(folder / f"switching-{re.sub(r'[^a-z0-9_.-]+', '-', '-'.join(title[1:]).lower())}.svg")
        plot(costs, paths[-1], ", ".join(title))
    return paths


def main(arguments: Sequence[str]) -> int:
    """Print advice. Return 0, 1 if no strategy can serve the trace, or 2 if the command was refused."""

    def run() -> int:
        options = _parser().parse_intermixed_args(arguments)
        return _advise(options.trace, options.memory_mb * 1e6, options.choices)

    return guarded(run)


def _parser() -> CommandParser:
    parser = CommandParser(
        "advise",
        "Name the cheapest strategy for a trace of requests of several shapes.\n\n"
        "Strategies are the records of suite=switching. The command prints the cost of each strategy, and the\n"
        "cheapest strategy with its margin and confidence. It writes a plot of cost against switching per precision.\n"
        "Exit status: 0 a strategy can serve the trace, 1 no strategy can, 2 the command was refused.",
        ("trace.txt --memory-mb 8000", "trace.txt results=results/reference machine=h200 precision=fp16"),
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


def _usable(folder: MachineFolder) -> list[Record]:
    """The records of suite=switching that costs can be read off; others are left out."""
    for record in folder.records("switching"):
        try:
            workload(record)
            for one in costs_of(record, NOTHING_JUDGED):
                assert one.means.served, one.wrong
        except Exception as error:
            folder.leave_out(record, one_line(f"no costs can be read off it: {type(error).__name__}: {error}", 200))
    return folder.records("switching")


def _advise(path: str, memory: float, choices: Sequence[str]) -> int:
    wanted = dict(choice.partition("=")[::2] for choice in choices)
    results = Path(wanted.pop("results", "") or default_folder("results"))
    if bare := [choice for choice in choices if "=" not in choice]:
        raise Refused(f"{shortened(bare[0])!r} is not of the form key=value; choices: {', '.join(KEYS)}")
    if unknown := sorted(set(wanted) - set(KEYS)):
        near = nearest(unknown[0], KEYS)
        hint = f"did you mean {near}? ({KEYS[near]}) " if near else ""
        raise Refused(f"there is no key {shortened(unknown[0])}; {hint}choices: {', '.join(KEYS)}")
    if not memory >= 0:
        raise Refused(f"--memory-mb={memory / 1e6:g} must be at least 0")
    folders = {folder.name: folder for folder in machine_folders(results)}
    try:
        trace = [size for _, size in read_trace(path)]
        if not any(folder.records("switching") for folder in folders.values()):
            raise Refused(
                f"{results} has no records of suite=switching; run it first, or choose results=results/reference"
            )
        records = chosen((record for folder in folders.values() for record in _usable(folder)), wanted)
        folder = folders[str(records[0].environment["machine"])]
        scores = judged(folder.records("accuracy"))
        advices = advise(records, trace, memory, scores)
        print(report(advices, trace))
        for plot in write_plots(records, folder.plots, scores):
            print(f"\nCost against switching: {plot}")
    except (OSError, ValueError) as error:
        say_bad(folders.values())
        raise Refused(str(error)) from None
    except Refused:
        say_bad(folders.values())
        raise
    return int(say_bad(folders.values()) > 0 or all(advice.against for advice in advices))


if __name__ == "__main__":
    sys.exit(tolerantly(lambda: main(sys.argv[1:])))
