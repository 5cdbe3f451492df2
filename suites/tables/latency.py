"""Records to markdown: pure functions. Every figure is computed here from the raw samples that a record holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from suites.cell import PROFILES
from suites.record import END_TO_END, ENQUEUE, GPU, LATENCY, OK, SUSTAINED, Measurement, Record
from suites.stats import Summary, summarize
from suites.tables.models import model_names, origin_note
from suites.tables.options import Distinctions, distinctions, sources_of
from suites.tables.rows import by_machine, joined, markdown, one_machine, products_not_int8, profiles_of
from suites.validity import Scores, Way, judged, problems, way

COLUMNS = (
    "backend", "precision", "profiles", "batch", "seq",
    "p50 ms [95% CI]", "p90", "p99", "graph p50 ms [95% CI]", "graph p99",
    "enqueue µs", "graph enqueue µs", "end-to-end ms", "graph end-to-end ms",
    "seq/s", "tokens/s", "peak MB", "mJ/seq", "cosine", "notes",
)  # fmt: skip

Phases = Mapping[tuple[str, bool], Measurement]
Judged = Mapping[Way, Mapping[str, Scores]]


@dataclass(frozen=True)
class Row:
    """Cells of a row by column, what it is sorted by, and its best time if its speed counts."""

    key: tuple[Any, ...]
    cells: Mapping[str, str]
    best: Summary | None = None


def latency_tables(records: Iterable[Record], accuracy: Iterable[Record] = ()) -> str:
    """All records in markdown: one section a machine, one table a model in it; empty if there are none.

    Records of the accuracy suite add what each path is worth, and mark it where that is too little. Batches that ran in
    several passes are left to suites/tables/workloads.py.
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
    """In order, and with a note at the fastest row of each shape and at those that its interval does not tell from it;
    one alone is not called so."""
    marked: list[Mapping[str, str]] = []
    for _, members in groupby(sorted(rows, key=lambda row: row.key), key=lambda row: row.key[:2]):
        group = list(members)
        times = [row.best for row in group if row.best is not None]
        reach = min(times, key=lambda time: time.p50).high if len(times) > 1 else 0.0
        for row in group:
            fastest = "**fastest**" if row.best is not None and row.best.low <= reach else ""
            marked.append({**row.cells, "notes": joined(fastest, row.cells["notes"])})
    return marked


LEGEND = """\
p50 is the median time of one forward pass with inputs on the device: GPU time by events on a GPU, host time of the
step on a CPU. *graph*: the same step replayed as a CUDA graph. *enqueue*: host time until the call returns, on an idle
device. *end-to-end*: host time with inputs copied in and outputs copied out. seq/s and tokens/s (padding not counted):
of steps run back to back, plain or graph, whichever is faster. *peak MB*: the most memory that the process had taken
by the end of that shape, on the device or, on a CPU, resident. *mJ/seq*: energy by the GPU's counter, back to back.
*cosine*: the smallest, over 8 sequences, between mean-pooled outputs and the FP32 reference. Then, by task, what the
path's outputs are worth and, in brackets, the difference to FP32's. **fastest**: of its shape, plain or as a graph,
among the rows that are not **invalid**: with NaN, further from FP32 than their precision explains (a cosine below
0.99, of INT8 and FP8 below 0.9), much further from it than at another shape, past a task's tolerance or failed on
it; several rows, where their intervals meet. Intervals speak of the noise within one process: small
batches without a graph wait for the host, whose pace differs from process to process."""


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
    phases = {(m.phase, m.cuda_graph): m for m in record.measurements if (m.batch, m.sequence) == (batch, sequence)}
    main = GPU if (GPU, False) in phases else LATENCY
    plain, graph = _summary(phases, main, False), _summary(phases, main, True)
    sustained = [_summary(phases, SUSTAINED if main == GPU else main, graph) for graph in (False, True)]
    pace = min(s.p50 for s in sustained if s is not None)
    tokens = record.artifacts["inputs"]["notes"]["shapes"][shape]["tokens"]
    checks = [c for c in record.checks if (c["batch"], c["sequence"]) == (batch, sequence)]
    wrong = problems(record, {(batch, sequence)}, tasks)
    values = (
        cell.backend, cell.precision, profiles_of(record), str(batch), str(sequence),
        _median(plain), _ms(plain, "p90"), _ms(plain, "p99"), _median(graph), _ms(graph, "p99"),
        _microseconds(_summary(phases, ENQUEUE, False)), _microseconds(_summary(phases, ENQUEUE, True)),
        _ms(_summary(phases, END_TO_END, False), "p50"), _ms(_summary(phases, END_TO_END, True), "p50"),
        _rate(batch, pace), _rate(tokens, pace), _peak(record, phases, shape), _energy(phases), _cosine(checks),
        joined(options, _notes(record, phases, shape), f"**invalid**: {'; '.join(wrong)}" if wrong else ""),
    )  # fmt: skip
    return Row(
        key=(sequence, batch, cell.backend, cell.precision, cell.id),
        cells={**dict(zip(COLUMNS, values, strict=True)), **{task: _worth(scores) for task, scores in tasks.items()}},
        best=None if wrong else min((s for s in (plain, graph) if s is not None), key=lambda summary: summary.p50),
    )


def _worth(scores: Scores) -> str:
    if "failure" in scores:
        return str(scores["failure"]).partition(":")[0]
    return "NaN" if scores["nonfinite"] else f"{scores['value']:.4f} ({scores['difference']:+.4f})"


def _summary(phases: Phases, phase: str, graph: bool) -> Summary | None:
    measurement = phases.get((phase, graph))
    return summarize(measurement.samples) if measurement else None


def _milliseconds(nanoseconds: float) -> str:
    value = nanoseconds / 1e6
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def _median(summary: Summary | None) -> str:
    if summary is None:
        return ""
    return f"{_milliseconds(summary.p50)} [{_milliseconds(summary.low)}, {_milliseconds(summary.high)}]"


def _ms(summary: Summary | None, name: str) -> str:
    return "" if summary is None else _milliseconds(getattr(summary, name))


def _microseconds(summary: Summary | None) -> str:
    return "" if summary is None else f"{summary.p50 / 1e3:.0f}"


def _rate(count: int, nanoseconds: float) -> str:
    return f"{count / nanoseconds * 1e9:,.0f}" if nanoseconds > 0 else ""


def _peak(record: Record, phases: Phases, shape: str) -> str:
    on_device = [m.telemetry["memory_bytes"] for m in phases.values() if "memory_bytes" in m.telemetry]
    peak = max(on_device) if on_device else record.facts.get(shape, {}).get("peak_host_bytes")
    return "" if peak is None else f"{peak / 1e6:,.0f}"


def _energy(phases: Phases) -> str:
    """With the CUDA graph where that has a figure, for it is the cheaper way."""
    measured = [phases[SUSTAINED, graph] for graph in (True, False) if (SUSTAINED, graph) in phases]
    known = [m.telemetry["energy_mj_per_sequence"] for m in measured if "energy_mj_per_sequence" in m.telemetry]
    return f"{known[0]:.2f}" if known else ""


def _cosine(checks: Sequence[Mapping[str, Any]]) -> str:
    if any(check["nonfinite"] for check in checks):
        return "NaN"
    return f"{min(check['cosine'] for check in checks):.5f}" if checks else ""


def _notes(record: Record, phases: Phases, shape: str) -> str:
    notes = [note for note in (record.cell.release, origin_note(record)) if note]
    if not all(m.steady for m in phases.values()):
        notes.append("not steady after warm-up")
    windows = [flag for m in phases.values() if m.phase == GPU for flag in m.throttled]
    if any(windows):
        reasons = sorted({r for m in phases.values() for r in m.telemetry.get("throttle_reasons", ())})
        notes.append(f"throttled in {sum(windows)} of {len(windows)} windows ({', '.join(reasons)})")
    if others := max((m.telemetry.get("other_processes", 0) for m in phases.values()), default=0):
        notes.append(f"{others} other process{'es' if others > 1 else ''} on the GPU")
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
