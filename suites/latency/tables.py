"""Latency records to markdown. Pure functions compute every figure from the raw samples of the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from suites.records.cell import PROFILES
from suites.records.measurement import END_TO_END, ENQUEUE, GPU, LATENCY, SUSTAINED, Measurement
from suites.records.parts import Check
from suites.records.record import OK, Record
from suites.statistics.stats import Estimate, best_time, estimate, percentile, typical
from suites.statistics.validity import ComputedPath, Scores, judged, problems, way
from suites.statistics.winners import Contender, cannot_win_note, comparable, fastest, mark, why_excluded
from suites.tables.distinctions import Distinctions, distinctions, sources_of
from suites.tables.markdown import (
    NOTES_LEGEND,
    ROW_LEGEND,
    by_machine,
    configuration,
    fitted,
    notes_cell,
    one_machine,
    products_not_int8,
)
from suites.tables.models import model_names, origin_note

KEYS = ("backend", "precision", "batch", "seq", "p50 ms [95% CI]", "graph p50 ms [95% CI]")
"""Columns that are in the first part of a table."""

FIGURES = (
    "seq/s", "cosine", "tokens/s", "peak MB", "mJ/seq", "processes", "samples", "p90 ms", "p99 ms", "graph p99 ms",
    "enqueue µs", "graph enqueue µs", "end-to-end ms", "graph end-to-end ms", "threads", "padding", "build s",
    "engine MB", "version",
)  # fmt: skip

COLUMNS = (*KEYS, *FIGURES, "notes")
"""All columns without those of tasks, which follow "cosine"."""

Phases = Mapping[tuple[str, bool], Sequence[Measurement]]
"""Measurements of one shape by phase and CUDA graph, one for each process."""

Judged = Mapping[ComputedPath, Mapping[str, Scores]]


@dataclass(frozen=True)
class Row:
    """Cells of a row by column, its sort key, and its best time if its outputs are valid."""

    key: tuple[Any, ...]
    cells: Mapping[str, str]
    best: Contender | None = None


def latency_tables(records: Iterable[Record], accuracy: Iterable[Record] = ()) -> str:
    """Return one section for each machine, with one table for each model; empty without latency records.

    Records of the accuracy suite add task scores, and mark the rows whose loss is too large. Batches that ran in
    several passes are in suites/latency/workload_tables.py.
    """
    single_pass, judging = [record for record in records if "passes" not in record.cell.lengths], list(accuracy)
    scores, sources = judged(judging), sources_of(judging)
    if not single_pass:
        return ""
    return by_machine("Latency", LEGEND, single_pass, lambda group: latency_section(group, scores, sources))


def latency_section(
    records: Sequence[Record], scores: Judged | None = None, sources: Mapping[str, str] | None = None
) -> str:
    """Return the section of one machine.

    Raises:
        Incomparable: the records come from several machines.
    """
    lines = ["", one_machine(records)]
    names = model_names(records)

    def workload_of(record: Record) -> tuple[str, ...]:
        return _workload(record, names(record))

    for workload, group in groupby(sorted(records, key=workload_of), key=workload_of):
        of_workload = list(group)
        common = distinctions(of_workload, PROFILES, sources)
        columns, rows = workload_rows(of_workload, common, scores or {})
        title = f"### {', '.join(workload)}, {_tokens(of_workload)} tokens"
        table = fitted(columns, [[row.get(name, "") for name in columns] for row in rows], len(KEYS))
        lines += ["", title, *common.caption(), "", table]
    return "\n".join(lines)


def workload_rows(
    records: Sequence[Record], common: Distinctions, scores: Judged
) -> tuple[Sequence[str], list[Mapping[str, str]]]:
    """Return the columns of a table, and its rows by column; notes are separated as in `rows.notes_cell`."""
    rows = [row for record in records for row in _rows(record, common, scores.get(way(record), {}))]
    tasks = sorted({name for row in rows for name in row.cells} - set(COLUMNS))
    position = COLUMNS.index("cosine") + 1
    return (*COLUMNS[:position], *tasks, *COLUMNS[position:]), _with_fastest(rows)


def _with_fastest(rows: Sequence[Row]) -> list[Mapping[str, str]]:
    """Return the rows in order. Notes mark the fastest row of each shape, and the rows that cannot win."""
    marked: list[Mapping[str, str]] = []
    for _, members in groupby(sorted(rows, key=lambda row: row.key), key=lambda row: row.key[:2]):
        group = list(members)
        valid = [row for row in group if row.best is not None]
        wins = fastest([row.best for row in valid if row.best is not None])
        winners = {id(row) for row, won in zip(valid, wins, strict=True) if won}
        lowest = min((row.best.time.p50 for row in valid if row.best is not None), default=0.0)
        for row in group:
            won = mark(len(winners)) if id(row) in winners else ""
            lost = cannot_win_note(row.best, lowest) if row.best is not None else ""
            marked.append({**row.cells, "notes": notes_cell(won, row.cells["notes"], lost)})
    return marked


LEGEND = f"""\
- **batch, seq**: sequences of one forward pass, and their length in tokens with padding.
- **p50 ms**: median time of one forward pass with inputs on the device, and its 95% interval in brackets. On a GPU it
  is GPU time by events, on a CPU host time. With several processes it is the geometric mean of their medians, and the
  interval covers another process too. With one process the interval covers only that process.
- **graph**: the same pass as a replayed CUDA graph.
- **seq/s, tokens/s**: throughput of passes that run back to back, plain or graph, whichever is faster. Padding does not
  count.
- **cosine**: smallest cosine, over 8 sequences, between mean-pooled outputs and the FP32 reference.
- **name of a task**: score on that task, and the difference from FP32 in brackets.
- **p90 ms, p99 ms**: percentiles over the samples of all processes; empty below 20 and 200 samples.
- **enqueue µs**: host time until the call returns, on an idle device.
- **end-to-end ms**: host time with inputs copied in and outputs copied out.
- **peak MB**: largest memory of the process until the end of that shape: device memory, or resident memory on a CPU.
- **mJ/seq**: energy of passes that run back to back, from the GPU's counter.
- **processes, samples**: fresh processes that measured, and the samples of p50 in all of them.
- **threads**: CPU threads that the backend used.
- **padding**: share of the input tokens that are padding.
- **build s, engine MB**: build time and size of the TensorRT engine.
- **version**: library and version of the backend.
{ROW_LEGEND}
{NOTES_LEGEND}
- **fastest**: lowest time of its shape, plain or graph. Several rows are fastest if the spread between processes
  explains their difference. A row of one process is compared by the spread between equal processes of its kind
  (`suites/statistics/process_noise.json`).
- **cannot win**: the row was not steady after warm-up, the GPU throttled, or other processes used the device (on a CPU:
  more than 5% of the CPU time). If such a row is faster than all others, no row is called fastest.
- **invalid**: the outputs contain NaN, or are further from FP32 than the precision explains (cosine below 0.99, for
  INT8 and FP8 below 0.9), or are much further from FP32 than at another shape. A row is also invalid if it loses more
  on a task than the tolerance, or if it failed on the task."""


def _workload(record: Record, name: str) -> tuple[str, ...]:
    cell = record.cell
    if cell.model == "none":
        return ("no model",)
    return (name, f"{cell.weights} weights", f"{cell.lengths['distribution']} lengths")


def _tokens(records: Sequence[Record]) -> str:
    """Return the kinds of token ids. A record with inputs names the kind that "auto" selected."""
    kinds = {r.artifacts.input_notes.tokens for r in records if r.artifacts.inputs}
    return " or ".join(sorted(kinds or {str(r.cell.lengths["tokens"]) for r in records}))


def _rows(record: Record, common: Distinctions, tasks: Mapping[str, Scores]) -> list[Row]:
    """Return a row for each measured shape, and a row with the reason if the cell did not end well."""
    cell, rows = record.cell, []
    options = configuration(record, common.of(record))
    measured = {(m.batch, m.sequence) for m in record.measurements}
    for batch, sequence in cell.shapes:
        if (batch, sequence) in measured:
            rows.append(_row(record, batch, sequence, options, tasks))
    if not rows or record.outcome != OK:
        notes = notes_cell(options, f"{record.outcome}: {record.reason}")
        named = {"backend": cell.backend, "precision": cell.precision, "notes": notes}
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
    sustained = {graph: _typical(phases, SUSTAINED if main == GPU else main, graph) for graph in (False, True)}
    _, pace = best_time({graph: time for graph, time in sustained.items() if time is not None})
    tokens = record.artifacts.input_notes.shapes[shape].tokens
    checks = [c for c in record.checks if c.shape == (batch, sequence)]
    wrong = problems(record, {(batch, sequence)}, tasks)
    graph, best_estimate = best_time(times)
    best = Contender(
        comparable(record, best_estimate, graph, batch * sequence), "; ".join(why_excluded(record, {(batch, sequence)}))
    )
    notes = notes_cell(options, *_notes(record, shape), f"**invalid**: {'; '.join(wrong)}" if wrong else "")
    values = (
        cell.backend, cell.precision, str(batch), str(sequence), _median(times.get(False)), _median(times.get(True)),
        _rate(batch, pace), _cosine(checks), _rate(tokens, pace), _peak(record, phases, shape), _energy(phases),
        str(best_estimate.processes), str(best_estimate.count),
        _percentile(phases, main, False, 90), _percentile(phases, main, False, 99),
        _percentile(phases, main, True, 99),
        _microseconds(_typical(phases, ENQUEUE, False)), _microseconds(_typical(phases, ENQUEUE, True)),
        _ms(_typical(phases, END_TO_END, False)), _ms(_typical(phases, END_TO_END, True)),
        _threads(record, batch, sequence), _padding(tokens, batch * sequence), *_engine(record), cell.release, notes,
    )  # fmt: skip
    return Row(
        key=(sequence, batch, cell.backend, cell.precision, cell.id),
        cells={**dict(zip(COLUMNS, values, strict=True)), **{task: _score(scores) for task, scores in tasks.items()}},
        best=None if wrong else best,
    )


def _score(scores: Scores) -> str:
    if scores.failure:
        return scores.failure.partition(":")[0]
    figures = scores.result.figures if scores.result and not scores.result.nonfinite else None
    return f"{figures.value:.4f} ({figures.difference:+.4f})" if figures else "NaN"


def _samples(phases: Phases, phase: str, graph: bool) -> list[tuple[int, ...]]:
    """Return the samples of each process in ns; empty if the phase was not measured."""
    return [measurement.samples for measurement in phases.get((phase, graph), ())]


def _typical(phases: Phases, phase: str, graph: bool) -> float | None:
    samples = _samples(phases, phase, graph)
    return typical(samples) if samples else None


def _percentile(phases: Phases, phase: str, graph: bool, q: float) -> str:
    """Return a percentile over the samples of all processes."""
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
    on_device = [telemetry.memory_bytes for telemetry in read if telemetry.memory_bytes is not None]
    peak = max(on_device) if on_device else record.facts.of_shape(shape).peak_host_bytes
    return "" if peak is None else f"{peak / 1e6:,.0f}"


def _energy(phases: Phases) -> str:
    """Return the energy with a CUDA graph, which is lower, or else that of plain steps."""
    for graph in (True, False):
        readings = [m.telemetry.energy_mj_per_sequence for m in phases.get((SUSTAINED, graph), ())]
        if energies := [energy for energy in readings if energy is not None]:
            return f"{sum(energies) / len(energies):.2f}"
    return ""


def _cosine(checks: Sequence[Check]) -> str:
    if any(check.nonfinite for check in checks):
        return "NaN"
    return f"{min(check.cosine for check in checks if check.cosine is not None):.5f}" if checks else ""


def _threads(record: Record, batch: int, sequence: int) -> str:
    """Return the largest number of CPU threads that a measurement used; empty on a GPU."""
    measured = [m for m in record.measurements if (m.batch, m.sequence) == (batch, sequence)]
    threads = max((m.telemetry.threads_used for m in measured), default=0)
    return str(threads) if record.cell.device == "cpu" and threads else ""


def _padding(tokens: int, computed: int) -> str:
    return f"{1 - tokens / computed:.0%}" if tokens < computed else ""


def _engine(record: Record) -> tuple[str, str]:
    """Return build seconds and megabytes of an engine; empty for other artifacts."""
    built = record.artifacts.built
    if built is None or built.notes.engine_bytes is None:
        return "", ""
    return f"{built.seconds:.0f}", f"{built.notes.engine_bytes / 1e6:,.0f}"


def _notes(record: Record, shape: str) -> list[str]:
    reason = record.facts.of_shape(shape).no_cuda_graph
    graphs = f"no CUDA graph: {reason}" if reason else ""
    return [origin_note(record), products_not_int8(record), graphs]
