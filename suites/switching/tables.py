"""Records of suite=switching to markdown: costs of strategies, replayed traces, and the cheapest strategy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from suites.records.measurement import REPLAY, Measurement
from suites.records.record import Record
from suites.statistics.stats import mean_of_blocks, percentile, summarize
from suites.statistics.validity import Judged, judged, way
from suites.switching.break_even_tables import cheapest
from suites.switching.costs import Costs, result_of
from suites.switching.first_use_tables import first_times, openings
from suites.switching.result import ReplayCounts
from suites.switching.strategies import Labels
from suites.switching.traffic import switch_of
from suites.switching.transition_tables import changes, steady_times
from suites.tables.markdown import by_machine, fitted, notes_cell, one_machine
from suites.tables.models import model_names, origin_note, output_text
from suites.tables.table import Table

LEGEND = """\
A request copies its inputs, sets its shape if it differs from that of the last request, and runs one step. The requests
of a shape use several sets of inputs in turn, with lengths that belong to that shape.

- **strategy**: the number in brackets is that in the list of strategies. *graphs* means that steps replay CUDA graphs.

Extra cost by kind of change:

- **extra cost µs**: time of a request after a change of shape, minus the time of the third request in the same place.
  It is the median over all pairs of that kind, with a 95% bootstrap interval. **mean** and **p99** are of the same
  differences.
- **change**: *back* is a change to the shape before the last one (A, B, A). With CUDA graphs, one graph is kept for
  each size that is known before the requests start: a *graph hit* replays it, a *graph miss* runs a plain step.
- **context, arrange, profile, input shape, set shape**: host time of each call that prepares a shape: finding its
  context, arranging the inputs and finding a graph, set_optimization_profile_async, set_input_shape. *set shape* is the
  whole time if a backend has no such calls. As the next two, they are medians beyond the third request.
- **copy**: time until the inputs are copied, with the work that the calls left to the device.
- **first step, second step**: time of the first two steps.
- **enqueue 1st, 2nd, 3rd**: time until the call of each step returns.
- **GPU first step**: GPU time of the first step beyond one after the same shape, between events on a device that was
  busy during enqueue.

Steady times:

- **request**: time of a request with the shape of the request before. With packed tokens, the number of tokens may
  differ.
- **step on the GPU**: GPU time of its step.

First requests, captures, opening and memory:

- **build s**: time to build the engine or model.
- **first request of the process**: extra time of the first request after a start, beyond the third. It is the median
  over processes that were started for this, with minimum and maximum.
- **first request per shape**: the same for the first request of each other shape, in the same context.
- **new context, new shape**: extra time of the first request in a new context, for a shape that is new to the process.
- **new context, known shape**: the same for a shape that the process has already run. From the second process on,
  torch.compile reads its compiled code from disk.
- **capture ms**: time to record and instantiate a CUDA graph, after a plain step of its shape.
- **first launch µs**: extra time of the first launch of a graph, relative to the next one.
- **first opening by step**: time of the first opening in a process, as median over processes, and the device memory
  that it takes. Brackets after a total have minimum and maximum, brackets after contexts have single contexts.
- **later openings ms**: time of any later opening in the process.
- **first requests MB, graphs MB**: device memory that first requests and kept graphs added. A framework may return
  memory, so the value may be negative. Brackets have the number of graphs and the size of one.
- **parity**: largest difference between outputs after any change and those of a context that ran no other shape, as a
  share of the largest output.
- **not bit-identical**: number of these outputs that differ in any bit.

Requests (replayed traces):

- **mean ms**: mean over all requests, with a 95% interval by blocks of requests. In traces with a switching
  probability, all shapes are equally frequent.
- **predicted mean ms**: sum of steady times and costs of changes, and in brackets the difference of the replay from it.
  The cheapest strategies are found with predictions. If two strategies differ by less than that, the replay decides.
- **p99 ms**: only for 200 requests or more.
- **requests**: number of requests. If the time was not sufficient, it is the number that ran, of all.
- **changes**: number of changes of shape.
- **graph misses**: share of requests that no kept graph could serve.
- **device MB**: device memory of the process.
- **version, notes**: library and version of the backend, and remarks. Numbers in brackets refer to the list below the
  table.
- **invalid**: the outputs are wrong. The strategy is at the end of the table, and is never called cheapest.

`switching_pairs.csv` has every ordered pair of shapes and of profiles."""


def switching_tables(records: Iterable[Record], accuracy: Iterable[Record] = ()) -> str:
    """Return one section for each machine, with one part for each model and set of requests.

    Records of the accuracy suite mark strategies whose loss is too large.
    """
    scores = judged(accuracy)
    return by_machine("Switching", LEGEND, records, lambda group: _section(group, scores))


def _section(records: Sequence[Record], scores: Judged) -> str:
    models = model_names(records)

    def title_of(record: Record) -> tuple[str, ...]:
        return models(record), *workload(record)[1:]

    lines = ["", one_machine(records)]
    for title, members in groupby(sorted(records, key=title_of), key=title_of):
        group = list(members)
        labels = Labels(group)
        costs = [strategy for record in group for strategy in costs_of(record, scores) if not strategy.measured_once]
        costs.sort(key=lambda strategy: (not strategy.is_valid, labels.names.of(strategy.record, strategy.cuda_graph)))
        lines += ["", f"### {', '.join(title[:-1])}", ""]
        lines += [f"{text}.\n" for text in sorted({origin_note(record) for record in group} - {""})]
        lines += labels.listing()
        if costs:
            lines += ["", "#### Extra cost by kind of change, µs", "", changes(costs, labels)]
            lines += ["", "#### Steady times, ms", "", steady_times(costs, labels)]
        lines += openings(group, labels)
        if costs:
            lines += ["", "#### First requests and captures by shape, ms", "", first_times(group, labels)]
        for name in _traces(group):
            lines += ["", f"#### Requests: {name}", "", _replays(costs, group, labels, name)]
        lines += cheapest(
            [strategy for strategy in costs if strategy.is_valid and len(set(strategy.served)) > 1], labels
        )
    return "\n".join(lines).rstrip()


def workload(record: Record) -> tuple[str, ...]:
    """Return the texts that comparable strategies share. The last one is a digest of the requests."""
    cell = record.cell
    shapes = " ".join(f"{batch}x{sequence}" for batch, sequence in cell.shapes)
    lengths = cell.lengths.get("choice", cell.lengths["distribution"])
    requests = [str(cell.lengths.get(name, "")) for name in ("traffic", "seed", "tokenizer")]
    described = f"{lengths} lengths{output_text(cell)}"
    return cell.model, f"{cell.weights} weights", described, shapes, " ".join(requests).strip()


def costs_of(record: Record, scores: Judged) -> list[Costs]:
    """Return the costs of plain steps and of CUDA graphs, if the record has them."""
    variants = sorted({t.cuda_graph for t in result_of(record).transitions})
    return [Costs.of(record, graph, scores.get(way(record))) for graph in variants]


def _traces(records: Sequence[Record]) -> list[str]:
    """Return the names of the traces, each once, in the order of their replays."""
    return list(dict.fromkeys(m.trace for record in records for m in record.measurements if m.phase == REPLAY))


def _replays(costs: Sequence[Costs], records: Sequence[Record], labels: Labels, name: str) -> str:
    strategies = {(strategy.record.cell.id, strategy.cuda_graph): strategy for strategy in costs}
    rows = []
    for record in records:
        for measured in record.measurements:
            if (measured.phase, measured.trace) == (REPLAY, name) and measured.samples:
                replay = _replay_of(record, measured, name)
                strategy = strategies.get((record.cell.id, measured.cuda_graph))
                invalid = strategy.output_faults if strategy else "changes were not measured"
                figures = _replay(measured, replay, invalid, _prediction(strategy, name))
                row = [labels.of(record, measured.cuda_graph), *figures]
                order = labels.names.of(record, measured.cuda_graph)
                rows.append((bool(invalid), float(np.mean(measured.samples)), order, row))
    header = ("strategy", "mean ms [95% CI]", "predicted mean ms", "p50 ms", "p99 ms", "requests/s", "requests",
              "changes", "graph misses", "device MB", "notes")  # fmt: skip
    return fitted(header, [row for *_, row in sorted(rows)], 1, repeat_keys=True)


def _replay_of(record: Record, measured: Measurement, name: str) -> ReplayCounts:
    """Return the counts of a replay in the result of its record."""
    return next(
        replay
        for replay in result_of(record).replays
        if (replay.name, replay.cuda_graph) == (name, measured.cuda_graph)
    )


def _prediction(strategy: Costs | None, name: str) -> str:
    """Return the mean by steady times and changes alone, and the difference of the replay from it."""
    switch = switch_of(name)
    if strategy is None or switch is None or switch not in strategy.replays:
        return ""
    predicted = float(strategy.means.at(switch))
    return f"{predicted / 1e6:.3f} ({strategy.replays[switch] / predicted - 1:+.1%})"


def _replay(measured: Measurement, replay: ReplayCounts, invalid: str, prediction: str) -> list[str]:
    summary, mean = summarize(measured.samples), float(np.mean(measured.samples))
    p99 = percentile(measured.samples, 99)
    blocks, requests = replay.blocks, replay.requests
    low, high = mean_of_blocks(measured.samples, blocks)
    interval = f" [{low / 1e6:.3f}, {high / 1e6:.3f}]" if len(blocks) > 1 else ""
    missed = summary.count - replay.replayed
    memory = measured.telemetry.memory_bytes
    served = str(summary.count) if requests == summary.count else f"{summary.count} of {requests}"
    return [
        f"{mean / 1e6:.3f}{interval}",
        prediction,
        f"{summary.p50 / 1e6:.3f}",
        "" if p99 is None else f"{p99 / 1e6:.3f}",
        f"{1e9 / mean:,.0f}",
        served,
        str(replay.switches),
        f"{missed / summary.count:.1%}" if measured.cuda_graph else "",
        f"{memory / 1e6:,.0f}" if memory else "",
        notes_cell(f"**invalid**: {invalid}" if invalid else "", "" if measured.steady else "not steady after warm-up"),
    ]


TABLES = {
    "switching": Table("suites.switching.tables:switching_tables", ("records", "accuracy")),
    "switching_pairs": Table("suites.switching.pair_tables:pair_table", suffix=".csv"),
}

END_TABLES = "suites.switching.strategy_end_tables:switching_end_tables"
"""Function that makes the short tables at the end of a run."""

PLOTS = "suites.switching.plot_files:write_machine_plots"
"""Function that writes the plots of a machine."""
