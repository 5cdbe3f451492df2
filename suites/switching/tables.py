"""Records of suite=switching to markdown: strategies side by side on traces, and where the cheapest one changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from suites.records.record import REPLAY, Measurement, Record
from suites.statistics.stats import mean_of_blocks, percentile, summarize
from suites.statistics.validity import Judged, judged, way
from suites.switching.break_even_tables import cheapest
from suites.switching.costs import Costs
from suites.switching.first_use_tables import first_times, openings
from suites.switching.strategy_names import Names
from suites.switching.transition_tables import changes, steady_times
from suites.tables.markdown import by_machine, joined, markdown, one_machine
from suites.tables.models import model_names, origin_note

LEGEND = """\
A request brings its inputs, sets its shape where it is another than the last one's, and takes one step. Requests of a
shape bring several sets of inputs in turn, whose lengths are those that bring a request to that shape.

*Steady* is what a request takes that has the shape of the one before; with packed tokens it may still have another
number of them. *over steady*: what a request takes beyond that for coming after another shape, measured against the
third request in the same place: the median over all pairs of that kind with its 95% bootstrap interval. Of it, by
median and beyond the third: the host time of each call that makes ready for the shape (*context*: finding whose it is;
*arrange*: laying out the inputs and finding a graph; *profile*: set_optimization_profile_async; *input shape*:
set_input_shape; *set shape*: all of it where there are no such calls), *copy* of the inputs until it is done, and with
it what those calls left for the device to do, *first step* and *second step*. *enqueue*: until the call of that step
returns. *on the GPU*: the first step beyond one after the same shape, between marks on a device that was busy while the
host enqueued them. *back*: to the shape before the last one, A to B to A. With CUDA graphs, one is kept for all sizes
that were known before the requests came: a *hit* launches it, a *miss* steps plainly.

*first of a process*: the very first request after a start, beyond the third; *then first in it*: that of every other
shape, in the same context: the median over processes that were started for this alone, with the least and the most.
*first in process*, *in context*: once each, in a context made for one shape that its process has not met, and in one
of a process that has met it. What torch.compile keeps on disk is there from the second process on. *capture*:
recording and instantiating a graph; *first launch* beyond the next. *opening*: what the first opening in a process
takes, by step, each the median over processes where there are several, and any later one; *MB of an opening*: the
device memory that each step of it took; *of graphs*: what keeping them took, less than nothing where a framework gave
some back. *parity*: the largest difference, as a share of the largest output, between outputs after any change and
those of a context that saw no other shape, and how many of the outputs were other bits.
A capture belongs to the shape that it records: it follows a plain step there, whatever came before. Every ordered pair
of shapes and of profiles, with each of these parts, stands in `switching_pairs.md`.

Replays serve one request after another; those with a switching probability have every shape as often as every other.
The mean, with its 95% interval by blocks of requests, has every request in it; p99 is of 200 requests or more. *adds up
to*: the same by steady times and changes alone, with which the cheapest are found, and how far the replay is from it:
where two strategies are nearer to each other than that, replays decide. *MB*: device memory of the process. A strategy
whose outputs are wrong is marked **invalid**, stands last and is never called cheapest."""


def switching_tables(records: Iterable[Record], accuracy: Iterable[Record] = ()) -> str:
    """All records in markdown: one section a machine, one part a model and set of requests in it; `accuracy` says which
    strategies count."""
    scores = judged(accuracy)
    return by_machine("Switching", LEGEND, records, lambda group: _section(group, scores))


def _section(records: Sequence[Record], scores: Judged) -> str:
    models = model_names(records)

    def title_of(record: Record) -> tuple[str, ...]:
        return models(record), *workload(record)[1:]

    lines = ["", one_machine(records)]
    for title, members in groupby(sorted(records, key=title_of), key=title_of):
        group = list(members)
        names = Names(group)
        costs = [one for record in group for one in costs_of(record, scores) if not one.single]
        costs.sort(key=lambda one: (not one.counts, names.of(one.record, one.cuda_graph)))
        lines += ["", f"### {', '.join(title[:-1])}", ""]
        lines += [f"{text}.\n" for text in sorted({origin_note(record) for record in group} - {""})]
        if costs:
            lines += [changes(costs, names), "", "#### Steady, ms", "", steady_times(costs, names), ""]
        lines += openings(group, names)
        if costs:
            lines += ["", "#### First times by shape, ms, and captures with their least and most", ""]
            lines += [first_times(group, names)]
        for name in _traces(group):
            lines += ["", f"#### Requests: {name}", "", _replays(costs, group, names, name)]
        lines += ["", *cheapest([one for one in costs if one.counts and len(set(one.served)) > 1], names)]
    return "\n".join(lines).rstrip()


def workload(record: Record) -> tuple[str, ...]:
    """What is the same for all strategies that may stand side by side; last a digest of the requests."""
    cell = record.cell
    shapes = " ".join(f"{batch}x{sequence}" for batch, sequence in cell.shapes)
    lengths = cell.lengths.get("choice", cell.lengths["distribution"])
    requests = [str(cell.lengths.get(name, "")) for name in ("traffic", "seed", "tokenizer")]
    return cell.model, f"{cell.weights} weights", f"{lengths} lengths", shapes, " ".join(requests).strip()


def costs_of(record: Record, scores: Judged) -> list[Costs]:
    """Of plain steps and of graphs, what the record has."""
    ways = sorted({t["cuda_graph"] for t in record.scores.get("transitions", [])})
    return [Costs.of(record, graph, scores.get(way(record))) for graph in ways]


def _traces(records: Sequence[Record]) -> list[str]:
    """In the order in which they were replayed, but each once."""
    phases = [m.phase for record in records for m in record.measurements if m.phase.startswith(REPLAY)]
    return [phase.removeprefix(f"{REPLAY} ") for phase in dict.fromkeys(phases)]


def _replays(costs: Sequence[Costs], records: Sequence[Record], names: Names, name: str) -> str:
    ways = {(one.record.cell.id, one.cuda_graph): one for one in costs}
    rows = []
    for record in records:
        for measured in record.measurements:
            if measured.phase == f"{REPLAY} {name}" and measured.samples:
                told = _told(record, measured, name)
                one = ways.get((record.cell.id, measured.cuda_graph))
                invalid = one.wrong if one else "changes were not measured"
                row = _replay(names.of(record, measured.cuda_graph), measured, told, invalid, _sum(one, name))
                rows.append((bool(invalid), float(np.mean(measured.samples)), row))
    header = ("strategy", "mean ms [95% CI]", "adds up to", "p50", "p99", "requests/s", "requests", "switches",
              "graph misses", "MB", "notes")  # fmt: skip
    return markdown(header, [row for *_, row in sorted(rows)])


def _told(record: Record, measured: Measurement, name: str) -> dict[str, object]:
    """What the replay says of itself."""
    return next(
        one for one in record.scores["replays"] if (one["name"], one["cuda_graph"]) == (name, measured.cuda_graph)
    )


def _sum(one: Costs | None, name: str) -> str:
    """What steady times and changes alone say of a replay, and how far it is from that."""
    switch = float(name.removeprefix("switch=")) if name.startswith("switch=") else -1.0
    if one is None or switch not in one.replays:
        return ""
    summed = float(one.means.at(switch))
    return f"{summed / 1e6:.3f} ({one.replays[switch] / summed - 1:+.1%})"


def _replay(name: str, measured: Measurement, told: dict[str, object], invalid: str, summed: str) -> list[str]:
    found, mean = summarize(measured.samples), float(np.mean(measured.samples))
    p99 = percentile(measured.samples, 99)
    blocks, asked = told["blocks"], told["asked"]
    assert isinstance(blocks, list)
    low, high = mean_of_blocks(measured.samples, blocks)
    interval = f" [{low / 1e6:.3f}, {high / 1e6:.3f}]" if len(blocks) > 1 else ""
    missed = found.count - int(str(told["replayed"]))
    memory = measured.telemetry.get("memory_bytes")
    served = str(found.count) if asked == found.count else f"{found.count} of {asked}"
    return [
        name,
        f"{mean / 1e6:.3f}{interval}",
        summed,
        f"{found.p50 / 1e6:.3f}",
        "" if p99 is None else f"{p99 / 1e6:.3f}",
        f"{1e9 / mean:,.0f}",
        served,
        str(told["switches"]),
        f"{missed / found.count:.1%}" if measured.cuda_graph else "",
        f"{memory / 1e6:,.0f}" if memory else "",
        joined(f"**invalid**: {invalid}" if invalid else "", "" if measured.steady else "warm-up never settled"),
    ]
