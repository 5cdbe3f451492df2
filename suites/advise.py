"""The cheapest strategy for a trace: `python -m suites.advise TRACE [--memory-mb N] [key=value ...]`.

TRACE has one request a line, a batch and a sequence length. Strategies are the records of suite=switching in `results=`
(by default results); other key=value arguments choose among them: model, precision, backend and machine. Prints what
each would take, the cheapest with its margin and confidence, and writes a plot of cost against switching to
results/plots/switching.svg.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from suites.checks import Refused
from suites.record import Record, read_records
from suites.switching_model import Costs, strategy
from suites.tables.rows import markdown
from suites.traffic import Size, read_trace, smallest

RESAMPLES = 500


@dataclass(frozen=True)
class Advice:
    """A strategy and what a trace would take with it.

    Attributes:
        nanoseconds: a request, on average.
        memory: bytes of device memory at most; 0 where nothing is known of it.
        against: why it is no choice; empty if it is one.
    """

    costs: Costs
    nanoseconds: float
    memory: float
    against: str = ""

    @property
    def name(self) -> str:
        return strategy(self.costs.record, self.costs.cuda_graph)


def advise(costs: Iterable[Costs], trace: Sequence[Size], memory: float = float("inf")) -> list[Advice]:
    """All strategies, the cheapest that can be chosen first.

    Args:
        memory: bytes of device memory that there are.
    """
    found = []
    for one in costs:
        taken = _memory(one)
        try:
            time, against = one.of_trace(held(one, trace)) / len(trace), ""
        except ValueError as error:
            time, against = float("inf"), str(error)
        if not one.counts:
            against = "its outputs are wrong"
        if taken > memory:
            against = f"takes {taken / 1e6:,.0f} MB"
        found.append(Advice(one, time, taken, against))
    return sorted(found, key=lambda advice: (bool(advice.against), advice.nanoseconds))


def confidence(best: Advice, others: Sequence[Advice], trace: Sequence[Size]) -> float:
    """Share of resamplings of all measurements in which `best` stays the cheapest."""
    generator, won = np.random.default_rng(0), 0
    for _ in range(RESAMPLES):
        times = [a.costs.resampled(generator).of_trace(held(a.costs, trace)) for a in (best, *others)]
        won += times[0] == min(times)
    return won / RESAMPLES


def held(costs: Costs, trace: Sequence[Size]) -> list[Size]:
    """The trace in the shapes that a strategy runs.

    Raises:
        ValueError: none of them holds a request.
    """
    return [costs.shapes[smallest(wanted, costs.shapes)] for wanted in trace]


def _memory(costs: Costs) -> float:
    known = [m.telemetry.get("memory_bytes", 0) for m in costs.record.measurements if m.cuda_graph == costs.cuda_graph]
    return float(max(known, default=0))


def chosen(records: Iterable[Record], wanted: Mapping[str, str]) -> list[Costs]:
    """Costs of the records that are of the model, precision, ... asked for, each with and without CUDA graphs.

    Raises:
        Refused: there are none, or they are of several models or machines.
    """
    kept = [r for r in records if r.scores and all(_of(r, key) == x for key, x in wanted.items())]
    for key in ("machine", "model"):
        values = sorted({_of(record, key) for record in kept})
        if len(values) > 1:
            raise Refused(f"there are records of {', '.join(values)}; choose one with {key}=")
    if not kept:
        raise Refused("no record of suite=switching is of what was asked for; run it first, see README.md")
    ways = [(r, graph) for r in kept for graph in sorted({t["cuda_graph"] for t in r.scores["transitions"]})]
    return [Costs.of(record, graph) for record, graph in ways]


def _of(record: Record, key: str) -> str:
    return str(record.environment["machine"]) if key == "machine" else str(getattr(record.cell, key))


def report(advices: Sequence[Advice], trace: Sequence[Size]) -> str:
    """The ranking in markdown, and the advice in one sentence."""
    changes = float(np.mean([a != b for a, b in pairwise(trace)])) if len(trace) > 1 else 0.0
    rows = [
        [a.name, "" if a.against else f"{a.nanoseconds / 1e6:.3f}", "" if a.against else f"{1e9 / a.nanoseconds:,.0f}",
         f"{a.memory / 1e6:,.0f}" if a.memory else "", a.against]
        for a in advices
    ]  # fmt: skip
    lines = [f"{len(trace)} requests, {changes:.1%} of them of another shape than the one before.", ""]
    lines += [markdown(("strategy", "ms a request", "requests/s", "MB", "no choice, because"), rows), ""]
    possible = [advice for advice in advices if not advice.against]
    if not possible:
        return "\n".join([*lines, "No strategy can serve this trace."])
    best, *others = possible
    if not others:
        return "\n".join([*lines, f"Use {best.name}: the only one that can serve this trace."])
    margin = others[0].nanoseconds / best.nanoseconds - 1
    sure = confidence(best, others, trace)
    return "\n".join([*lines, f"Use {best.name}: {margin:.1%} cheaper than {others[0].name}; cheapest in {sure:.0%} of "
                      f"{RESAMPLES} resamplings of the measurements."])  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Print advice; returns 0, or 2 if there is nothing to give any by."""
    description, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m suites.advise", description=f"{description}\n\n{rest}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("trace")
    parser.add_argument("--memory-mb", type=float, default=float("inf"), help="device memory that there is")
    parser.add_argument("choices", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)
    wanted = dict(choice.partition("=")[::2] for choice in options.choices)
    results = Path(wanted.pop("results", "results"))
    try:
        if unknown := set(wanted) - {"model", "precision", "backend", "machine"}:
            raise Refused(f"{', '.join(sorted(unknown))}= chooses nothing; use model, precision, backend or machine")
        trace = [size for _, size in read_trace(options.trace)]
        costs = chosen(read_records(results, "switching"), wanted)
        print(report(advise(costs, trace, options.memory_mb * 1e6), trace))
        from suites.tables.plot import plot

        path = results / "plots" / "switching.svg"
        plot(costs, path)
        print(f"\nCost against switching: {path}")
    except (Refused, OSError, ValueError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
