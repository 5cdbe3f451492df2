"""Records to markdown: pure functions. Every figure is computed here from the raw samples that a record holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from suites.records.cell import PROFILES
from suites.records.record import END_TO_END, ENQUEUE, GPU, LATENCY, OK, SUSTAINED, Measurement, Record
from suites.statistics.stats import Estimate, estimate, percentile, typical
from suites.statistics.validity import Scores, Way, judged, problems, way
from suites.statistics.winners import Contender, comparable, fastest, lost_by, mark, why_excluded
from suites.tables.distinctions import Distinctions, distinctions, sources_of
from suites.tables.markdown import by_machine, joined, markdown, one_machine, products_not_int8, profiles_of
from suites.tables.models import model_names, origin_note

COLUMNS = (
    "backend", "precision", "profiles", "batch", "seq",
    "p50 ms [95% CI]", "p90", "p99", "graph p50 ms [95% CI]", "graph p99",
    "enqueue µs", "graph enqueue µs", "end-to-end ms", "graph end-to-end ms",
    "seq/s", "tokens/s", "peak MB", "mJ/seq", "cosine", "processes", "samples", "notes",
)  # fmt: skip

Phases = Mapping[tuple[str, bool], Sequence[Measurement]]
"""Measurements of one shape by phase and CUDA graph, one for each process."""

Judged = Mapping[Way, Mapping[str, Scores]]


@dataclass(frozen=True)
class Row:
    """Cells of a row by column, what it is sorted by, and its best time if its outputs are valid."""

    key: tuple[Any, ...]
    cells: Mapping[str, str]
    best: Contender | None = None


def latency_tables(records: Iterable[Record], accuracy: Iterable[Record] = ()) -> str:
    """All records in markdown: one section a machine, one table a model in it; empty if there are none.

    Records of the accuracy suite add what each path is worth, and mark it where that is too little. Batches that ran in
    several passes are left to suites/latency/workload_tables.py.
    """
    wanted, tried = [record for record in records if "passes" not in record.cell.lengths], list(accuracy)
    scores, sources = judged(tried), sources_of(tried)
    if not wanted:
        return ""
    return by_machine("Latency", LEGEND, wanted, lambda group: latency_section(group, scores, sources))


def latency_section(
    records: Sequence[Record], scores: Judged | None = None, sources: Mapping[str, str] | None = None
) -> str:
    """The records of one machine; raises Incomparable if they are not."""
    lines = ["", one_machine(records)]
    names = model_names(records)

    def workload_of(record: Record) -> tuple[str, ...]:
        return _workload(record, names(record))

    for workload, members in groupby(sorted(records, key=workload_of), key=workload_of):
        group = list(members)
        told = distinctions(group, PROFILES, sources)
        rows = [row for record in group for row in _rows(record, told, (scores or {}).get(way(record), {}))]
        tasks = sorted({name for row in rows for name in row.cells} - set(COLUMNS))
        columns = (*COLUMNS[:-1], *tasks, "notes")
        table = [[cells.get(name, "") for name in columns] for cells in _with_fastest(rows)]
        title = f"### {', '.join(workload)}, {_tokens(group)} tokens"
        lines += ["", title, *told.caption(), "", markdown(columns, table)]
    return "\n".join(lines)


def _with_fastest(rows: Sequence[Row]) -> list[Mapping[str, str]]:
    """In order, with a note at the fastest row of each shape, and at rows that cannot be called so."""
    marked: list[Mapping[str, str]] = []
    for _, members in groupby(sorted(rows, key=lambda row: row.key), key=lambda row: row.key[:2]):
        group = list(members)
        valid = [row for row in group if row.best is not None]
        wins = fastest([row.best for row in valid if row.best is not None])
        winners = {id(row) for row, won in zip(valid, wins, strict=True) if won}
        lowest = min((row.best.time.p50 for row in valid if row.best is not None), default=0.0)
        for row in group:
            won = mark(len(winners)) if id(row) in winners else ""
            lost = lost_by(row.best, lowest) if row.best is not None else ""
            marked.append({**row.cells, "notes": joined(won, row.cells["notes"], lost)})
    return marked


LEGEND = """\
- **p50**: median time of one forward pass with inputs on the device, in brackets its 95% interval. On a GPU it is GPU
  time by events, on a CPU host time. Of several processes it is the geometric mean of their medians, and the interval
  holds for another process too. Of one process the interval speaks of that process alone.
- **p90, p99**: over the samples of all processes; empty below 20 and 200 samples.
- **graph**: the same pass replayed as a CUDA graph.
- **enqueue**: host time until the call returns, on an idle device.
- **end-to-end**: host time with inputs copied in and outputs copied out.
- **seq/s, tokens/s**: of passes run back to back, plain or graph, whichever is faster. Padding does not count.
- **peak MB**: the most memory that the process had taken by the end of that shape: of the device, or resident on a CPU.
- **mJ/seq**: energy by the counter of the GPU, back to back.
- **cosine**: the smallest, over 8 sequences, between mean-pooled outputs and the FP32 reference.
- **a task's name**: the figure on that task and, in brackets, the difference to FP32.
- **processes, samples**: fresh processes that measured, and samples of p50 in all of them.
- **fastest**: the lowest time of its shape, plain or graph. Several rows are called fastest where the spread between
  processes explains their difference. A row of one process is compared by the spread that equal processes of its
  kind showed (`suites/process_noise.json`).
- **cannot win**: the row was not steady after warm-up, the GPU throttled, or others used the device (on a CPU: more
  than 5% of the CPU time). If such a row is faster than all others, no row is called fastest.
- **invalid**: outputs hold NaN, are further from FP32 than the precision explains (a cosine below 0.99, of INT8 and FP8
  below 0.9) or much further than at another shape, lose more on a task than its tolerance, or the path failed on it."""


def _workload(record: Record, name: str) -> tuple[str, ...]:
    cell = record.cell
    if cell.model == "none":
        return ("no model",)
    return (name, f"{cell.weights} weights", f"{cell.lengths['distribution']} lengths")


def _tokens(records: Sequence[Record]) -> str:
    """Kinds of token ids in use: a cell may ask for "auto", and a record that got that far says what it was."""
    kinds = {str(r.artifacts["inputs"]["notes"]["tokens"]) for r in records if "inputs" in r.artifacts}
    return " or ".join(sorted(kinds or {str(r.cell.lengths["tokens"]) for r in records}))


def _rows(record: Record, told: Distinctions, tasks: Mapping[str, Scores]) -> list[Row]:
    """Rows of a record: one a shape, or one that says why there is none."""
    cell, rows = record.cell, []
    options = told.of(record)
    measured = {(m.batch, m.sequence) for m in record.measurements}
    for batch, sequence in cell.shapes:
        if (batch, sequence) in measured:
            rows.append(_row(record, batch, sequence, options, tasks))
    if not rows or record.outcome != OK:
        notes = joined(options, f"{record.outcome}: {record.reason}")
        named = {"backend": cell.backend, "precision": cell.precision, "profiles": profiles_of(record), "notes": notes}
        rows.append(Row((1 << 30, 0, cell.backend, cell.precision, cell.id), named))
    return rows


def _row(record: Record, batch: int, sequence: int, options: str, tasks: Mapping[str, Scores]) -> Row:
    cell, shape = record.cell, f"{batch}x{sequence}"
    phases: dict[tuple[str, bool], list[Measurement]] = {}
    for m in record.measurements:
        if (m.batch, m.sequence) == (batch, sequence):
            phases.setdefault((m.phase, m.cuda_graph), []).append(m)
    main = GPU if (GPU, False) in phases else LATENCY
    times = {graph: estimate(samples) for graph in (False, True) if (samples := _samples(phases, main, graph))}
    sustained = [_typical(phases, SUSTAINED if main == GPU else main, graph) for graph in (False, True)]
    pace = min(time for time in sustained if time is not None)
    tokens = record.artifacts["inputs"]["notes"]["shapes"][shape]["tokens"]
    checks = [c for c in record.checks if (c["batch"], c["sequence"]) == (batch, sequence)]
    wrong = problems(record, {(batch, sequence)}, tasks)
    graph = min(times, key=lambda one: times[one].p50)
    best = Contender(
        comparable(record, times[graph], graph, batch * sequence), "; ".join(why_excluded(record, {(batch, sequence)}))
    )
    values = (
        cell.backend, cell.precision, profiles_of(record), str(batch), str(sequence),
        _median(times.get(False)), _percentile(phases, main, False, 90), _percentile(phases, main, False, 99),
        _median(times.get(True)), _percentile(phases, main, True, 99),
        _microseconds(_typical(phases, ENQUEUE, False)), _microseconds(_typical(phases, ENQUEUE, True)),
        _ms(_typical(phases, END_TO_END, False)), _ms(_typical(phases, END_TO_END, True)),
        _rate(batch, pace), _rate(tokens, pace), _peak(record, phases, shape), _energy(phases), _cosine(checks),
        str(times[graph].processes), str(times[graph].count),
        joined(options, _notes(record, shape), f"**invalid**: {'; '.join(wrong)}" if wrong else ""),
    )  # fmt: skip
    return Row(
        key=(sequence, batch, cell.backend, cell.precision, cell.id),
        cells={**dict(zip(COLUMNS, values, strict=True)), **{task: _worth(scores) for task, scores in tasks.items()}},
        best=None if wrong else best,
    )


def _worth(scores: Scores) -> str:
    if "failure" in scores:
        return str(scores["failure"]).partition(":")[0]
    return "NaN" if scores["nonfinite"] else f"{scores['value']:.4f} ({scores['difference']:+.4f})"


def _samples(phases: Phases, phase: str, graph: bool) -> list[tuple[int, ...]]:
    """Samples in ns of each process; empty where the phase was not measured."""
    return [measurement.samples for measurement in phases.get((phase, graph), ())]


def _typical(phases: Phases, phase: str, graph: bool) -> float | None:
    samples = _samples(phases, phase, graph)
    return typical(samples) if samples else None


def _percentile(phases: Phases, phase: str, graph: bool, q: float) -> str:
    """Over the samples of all processes."""
    return _ms(percentile([sample for samples in _samples(phases, phase, graph) for sample in samples], q))


def _milliseconds(nanoseconds: float) -> str:
    value = nanoseconds / 1e6
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def _median(time: Estimate | None) -> str:
    if time is None:
        return ""
    return f"{_milliseconds(time.p50)} [{_milliseconds(time.low)}, {_milliseconds(time.high)}]"


def _ms(time: float | None) -> str:
    return "" if time is None else _milliseconds(time)


def _microseconds(time: float | None) -> str:
    return "" if time is None else f"{time / 1e3:.0f}"


def _rate(count: int, nanoseconds: float) -> str:
    return f"{count / nanoseconds * 1e9:,.0f}" if nanoseconds > 0 else ""


def _peak(record: Record, phases: Phases, shape: str) -> str:
    read = [m.telemetry for several in phases.values() for m in several]
    on_device = [telemetry["memory_bytes"] for telemetry in read if "memory_bytes" in telemetry]
    peak = max(on_device) if on_device else record.facts.get(shape, {}).get("peak_host_bytes")
    return "" if peak is None else f"{peak / 1e6:,.0f}"


def _energy(phases: Phases) -> str:
    """With the CUDA graph where that has a figure, for it is the cheaper way."""
    name = "energy_mj_per_sequence"
    for graph in (True, False):
        known = [m.telemetry[name] for m in phases.get((SUSTAINED, graph), ()) if name in m.telemetry]
        if known:
            return f"{sum(known) / len(known):.2f}"
    return ""


def _cosine(checks: Sequence[Mapping[str, Any]]) -> str:
    if any(check["nonfinite"] for check in checks):
        return "NaN"
    return f"{min(check['cosine'] for check in checks):.5f}" if checks else ""


def _notes(record: Record, shape: str) -> str:
    notes = [note for note in (record.cell.release, origin_note(record)) if note]
    used = [m.telemetry.get("threads_used", 0) for m in record.measurements if f"{m.batch}x{m.sequence}" == shape]
    if record.cell.device == "cpu" and any(used):
        notes.append(f"{max(used)} thread{'s' if max(used) > 1 else ''}")
    built = record.artifacts.get("built", {})
    if floating := products_not_int8(record):
        notes.append(floating)
    if "engine_bytes" in built.get("notes", {}):
        notes.append(f"built in {built['seconds']:.0f} s, {built['notes']['engine_bytes'] / 1e6:,.0f} MB")
    batch, sequence = (int(size) for size in shape.split("x"))
    tokens = record.artifacts["inputs"]["notes"]["shapes"][shape]["tokens"]
    if tokens < batch * sequence:
        notes.append(f"{1 - tokens / (batch * sequence):.0%} padding")
    facts = record.facts.get(shape, {})
    if "no_cuda_graph" in facts:
        notes.append(f"no CUDA graph: {facts['no_cuda_graph']}")
    return "; ".join(notes)
