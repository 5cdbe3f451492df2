"""Records of suite=switching to markdown: what changes cost, pair by pair, and strategies side by side on traces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, groupby, pairwise

import numpy as np

from backends.base import Array
from suites.cell import PROFILES
from suites.record import OK, REPLAY, Measurement, Record
from suites.stats import summarize
from suites.switching_model import Costs, break_even, kinds, strategy
from suites.tables.options import distinctions
from suites.tables.rows import by_machine, joined, markdown, one_machine
from suites.traffic import Size

LEGEND = """\
A request brings its inputs, sets its shape where it is another than the last one's, and takes one step. *over
steady*: what a request costs beyond one of the same shape, the median over all pairs of that kind with its 95%
bootstrap interval, and how that is divided: *set shape*, the host time of the calls that make ready for the shape
(with TensorRT set_input_shape and, for another profile, set_optimization_profile_async), and *first step* beyond the
second one. With CUDA graphs every shape's graph is kept: to return to one is to launch it. *capture*: recording and
instantiating a graph; *first launch* beyond the next. *cold*: the first step ever at a shape in a process, beyond the
second. Replays serve one request after another; those with a switching probability have every shape as often as every
other. *build*: all engines. *context MB*: activations of one execution context. *opening*: deserializing plans and
creating contexts. *MB*: device memory of the process. *parity*: the largest difference, as a share of the largest
output, between outputs after any change and those of a context that saw no other shape, and how many of the outputs
were other bits."""


def switching_tables(records: Iterable[Record]) -> str:
    """All records in markdown: one section a machine, one part a model and set of shapes in it."""
    return by_machine("Switching", LEGEND, records, _section)


def _section(records: Sequence[Record]) -> str:
    lines = ["", one_machine(records)]
    ordered = sorted(records, key=_workload)
    for workload, members in groupby(ordered, key=_workload):
        group = list(members)
        costs = [Costs.of(r, graph) for r in group if r.scores for graph in _ways(r)]
        lines += ["", f"### {', '.join(workload)}", "", _changes(costs)]
        lines += _openings(group)
        lines += [text for name in _traces(group) for text in ("", f"#### Requests: {name}", "", _replays(group, name))]
        lines += [text for one in costs for text in ("", f"#### Every pair: {_name(one)}, us", "", _matrix(one))]
        lines += ["", *_crossings(costs)]
    return "\n".join(lines).rstrip()


def _workload(record: Record) -> tuple[str, ...]:
    cell = record.cell
    shapes = " ".join(f"{batch}x{sequence}" for batch, sequence in cell.shapes)
    return (cell.model, f"{cell.weights} weights", f"{cell.lengths['distribution']} lengths", shapes)


def _ways(record: Record) -> list[bool]:
    return sorted({t["cuda_graph"] for t in record.scores["transitions"] if not t["cold"]})


def _name(costs: Costs) -> str:
    return strategy(costs.record, costs.cuda_graph)


def _changes(costs: Sequence[Costs]) -> str:
    rows = []
    for one in sorted(costs, key=_name):
        for kind, pairs in _by_kind(one).items():
            over = summarize(np.concatenate([one.change[pair] for pair in pairs]).tolist())
            shape = np.median(np.concatenate([one.parts[pair]["shape"] for pair in pairs]))
            first = np.median(np.concatenate([one.parts[pair]["first"] - one.parts[pair]["again"] for pair in pairs]))
            on_device = [one.parts[pair]["first_gpu"] - one.parts[pair]["again_gpu"] for pair in pairs]
            gpu = (
                _us(np.median(np.concatenate(on_device)))
                if any(x["again_gpu"].any() for x in one.parts.values())
                else ""
            )
            interval = f"{_us(over.p50)} [{_us(over.low)}, {_us(over.high)}]"
            rows.append([_name(one), kind, interval, _us(over.p99), _us(shape), _us(first), gpu])
    header = ("strategy", "change", "over steady us [95% CI]", "p99", "set shape", "first step", "of it on the GPU")
    return markdown(header, rows)


def _by_kind(costs: Costs) -> dict[str, list[tuple[Size, Size]]]:
    found: dict[str, list[tuple[Size, Size]]] = {}
    for pair, kind in kinds(costs.record, list(costs.change)).items():
        found.setdefault(kind, []).append(pair)
    return {kind: found[kind] for kind in ("same shape", "other shape", "other profile") if kind in found}


def _openings(records: Sequence[Record]) -> list[str]:
    told, rows = distinctions(records, (*PROFILES, "contexts", "engines", "layout")), []
    for record in sorted(records, key=lambda r: (strategy(r, False), r.cell.id)):
        reason = "" if record.outcome == OK else f"{record.outcome}: {record.reason}"
        graphs = record.facts.get("no_cuda_graph", "")
        notes = joined(told.of(record), record.cell.release, reason, f"no CUDA graphs: {graphs}" if graphs else "")
        if not record.scores:
            rows.append([strategy(record, False), *[""] * 7, notes])
            continue
        opening = "; ".join(f"{name} {took / 1e6:.0f}" for name, took in record.facts["opening_ns"].items())
        cold = [
            np.subtract(t["samples"]["first"], t["samples"]["again"]) for t in record.scores["transitions"] if t["cold"]
        ]
        captures = record.scores["captures"]
        built, met_first = record.artifacts["built"]["seconds"], np.median(np.concatenate(cold))
        rows.append([
            strategy(record, False), f"{built:.0f}", opening, _context(record), f"{met_first / 1e6:.2f}",
            f"{np.median([x for c in captures for x in c['capture']]) / 1e6:.2f}" if captures else "",
            _us(np.median([np.subtract(c["launch"], c["again"]) for c in captures])) if captures else "",
            _parity(record), notes,
        ])  # fmt: skip
    header = ("strategy", "build s", "opening ms", "context MB", "cold ms", "capture ms", "first launch us", "parity",
              "notes")  # fmt: skip
    return [*told.caption(), "", markdown(header, rows)]


def _context(record: Record) -> str:
    """Activation memory of an execution context, where the engine says it."""
    size = record.artifacts["built"].get("notes", {}).get("activation_bytes")
    return "" if size is None else f"{size / 1e6:,.0f}"


def _parity(record: Record) -> str:
    worst = max(record.scores["parity"], key=lambda one: float(one["difference"]))
    unequal = sum(one["unequal"] for one in record.scores["parity"])
    return f"{worst['difference']:.1e}, {unequal} of {sum(one['transitions'] for one in record.scores['parity'])}"


def _traces(records: Sequence[Record]) -> list[str]:
    """In the order in which they were replayed, but each once."""
    phases = [m.phase for record in records for m in record.measurements if m.phase.startswith(REPLAY)]
    return [phase.removeprefix(f"{REPLAY} ") for phase in dict.fromkeys(phases)]


def _replays(records: Sequence[Record], name: str) -> str:
    rows = []
    for record in records:
        for measured in record.measurements:
            if measured.phase == f"{REPLAY} {name}" and record.outcome == OK:
                rows.append((float(np.mean(measured.samples)), _replay(record, measured)))
    return markdown(("strategy", "mean ms", "p50", "p99", "requests/s", "MB"), [row for _, row in sorted(rows)])


def _replay(record: Record, measured: Measurement) -> list[str]:
    found, mean = summarize(measured.samples), float(np.mean(measured.samples))
    memory = measured.telemetry.get("memory_bytes")
    figures = [f"{value / 1e6:.3f}" for value in (mean, found.p50, found.p99)]
    return [
        strategy(record, measured.cuda_graph),
        *figures,
        f"{1e9 / mean:,.0f}",
        f"{memory / 1e6:,.0f}" if memory else "",
    ]


def _matrix(costs: Costs) -> str:
    _, change = costs.medians
    header = ("from \\ to", *(f"{batch}x{sequence}" for batch, sequence in costs.shapes))
    rows = [[f"{a[0]}x{a[1]}", *(_us(change[a, b]) for b in costs.shapes)] for a in costs.shapes]
    return markdown(header, rows)


def _crossings(costs: Sequence[Costs]) -> list[str]:
    """Where the cheapest strategy changes with the share of requests that switch."""
    held = [one for one in costs if one.counts and len(one.shapes) > 1]
    meetings = {break_even(a, b): (a, b) for a, b in combinations(held, 2)}
    edges = sorted({0.0, 1.0, *(switch for switch in meetings if switch is not None)})
    best: list[tuple[float, float, Costs]] = []
    for low, high in pairwise(edges):
        winner = min(held, key=lambda one: one.at((low + high) / 2)) if held else None
        if winner is not None and best and best[-1][2] is winner:
            best[-1] = (best[-1][0], high, winner)
        elif winner is not None:
            best.append((low, high, winner))
    if not best:
        return []
    lines = ["Cheapest by the share of requests that have another shape than the one before, all shapes as often:", ""]
    return lines + [f"- {low:.3f} to {high:.3f}: {_name(one)}" for low, high, one in best] + [""]


def _us(nanoseconds: float | Array) -> str:
    return f"{float(nanoseconds) / 1e3:.1f}"
