"""Latency records to markdown. Pure functions compute every figure from the raw samples of the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from suites.latency.achieved import achieved, ceiling, share
from suites.latency.answer_table import LEGEND as ANSWER_LEGEND
from suites.latency.answer_table import answer_table, milliseconds
from suites.latency.figures import LatencyRow, Verdict, latency_rows, verdicts
from suites.latency.request_parts import LEGEND as PARTS_LEGEND
from suites.latency.request_parts import parts_table
from suites.records.cell import PROFILES
from suites.records.record import OK, Record
from suites.schema.enums import Rank
from suites.statistics.stats import Estimate
from suites.statistics.validity import Judged, Scores, judged
from suites.statistics.winners import mark, power_note
from suites.tables.distinctions import Distinctions, distinctions, sources_of
from suites.tables.markdown import (
    NOTES_LEGEND,
    ROW_LEGEND,
    by_machine,
    configuration,
    digits,
    fitted,
    notes_cell,
    one_machine,
    products_not_int8,
)
from suites.tables.models import model_names, origin_note, output_text
from suites.tables.table import Table

KEYS = ("backend", "precision", "batch", "seq", "p50 ms [95% CI]", "graph p50 ms [95% CI]")
"""Columns that are in the first part of a table."""

FIGURES = (
    "seq/s", "cosine", "tokens/s", "TFLOP/s", "% of ceiling", "peak MB", "mJ/seq", "processes", "samples", "p90 ms",
    "p99 ms", "graph p99 ms", "enqueue µs", "graph enqueue µs", "request p50 ms", "graph request p50 ms",
    "tokenize p50 ms", "text request p50 ms", "threads", "padding", "build s", "engine MB", "version",
)  # fmt: skip

COLUMNS = (*KEYS, *FIGURES, "notes")
"""All columns without those of tasks, which follow "cosine"."""


@dataclass(frozen=True)
class Row:
    """Cells of a row by column, its sort key, and its figures if its shape was measured."""

    key: tuple[int, int, bool, float, str]
    cells: Mapping[str, str]
    figures: LatencyRow | None = None


def latency_tables(
    records: Iterable[Record],
    accuracy: Iterable[Record] = (),
    rank: Rank = Rank.gpu,
    ceilings: Sequence[Record] = (),
) -> str:
    """Return one section for each machine, with one table for each model; empty without latency records.

    Records of the accuracy suite add task scores, and mark the rows whose loss is too large. Records of suite=ceilings
    of the machine add the share of its fastest product. Batches that ran in
    several passes are in suites/latency/workload_tables.py.
    """
    single_pass, judging = [record for record in records if "passes" not in record.cell.lengths], list(accuracy)
    scores, sources = judged(judging), sources_of(judging)
    if not single_pass:
        return ""
    return by_machine(
        "Latency", LEGEND, single_pass, lambda group: latency_section(group, scores, sources, rank, ceilings)
    )


def latency_section(
    records: Sequence[Record],
    scores: Judged | None = None,
    sources: Mapping[str, str] | None = None,
    rank: Rank = Rank.gpu,
    ceilings: Sequence[Record] = (),
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
        columns, rows = workload_rows(of_workload, common, scores or {}, rank, ceilings)
        title = f"### {', '.join(workload)}, {_tokens(of_workload)} tokens"
        table = fitted(columns, [[row.get(name, "") for name in columns] for row in rows], len(KEYS))
        answer = answer_table(of_workload, scores or {}, rank)
        by_request = " by request time" if rank is Rank.request else ""
        answers = ["", f"#### Fastest row of each shape{by_request}", "", answer, "", "#### All rows"] if answer else []
        parts = parts_table(of_workload, common)
        lines += ["", title, *answers, *common.caption(), "", table]
        lines += ["", "#### Parts of a request", "", parts] if parts else []
    return "\n".join(lines)


def workload_rows(
    records: Sequence[Record],
    common: Distinctions,
    scores: Judged,
    rank: Rank = Rank.gpu,
    ceilings: Sequence[Record] = (),
) -> tuple[Sequence[str], list[Mapping[str, str]]]:
    """Return the columns of a table, and its rows by column; notes are separated as in `rows.notes_cell`."""
    rows = [row for record in records for row in _rows(record, common, scores, rank, ceilings)]
    tasks = sorted({name for row in rows for name in row.cells} - set(COLUMNS))
    position = COLUMNS.index("cosine") + 1
    return (*COLUMNS[:position], *tasks, *COLUMNS[position:]), _with_fastest(rows)


def _with_fastest(rows: Sequence[Row]) -> list[Mapping[str, str]]:
    """Return the rows in order. Notes mark the fastest row of each shape, and the rows that cannot win."""
    marked: list[Mapping[str, str]] = []
    for _, members in groupby(sorted(rows, key=lambda row: row.key), key=lambda row: row.key[:2]):
        group = list(members)
        measured = [row.figures for row in group if row.figures is not None]
        verdict_of = {id(figures): verdict for figures, verdict in zip(measured, verdicts(measured), strict=True)}
        for row in group:
            verdict = verdict_of.get(id(row.figures), Verdict())
            won = mark(verdict.winners) if verdict.winners else ""
            marked.append({**row.cells, "notes": notes_cell(won, row.cells["notes"], verdict.cannot_win)})
    return marked


LEGEND = f"""\
The first table has the answer for each shape. The second has every row; those of a shape are sorted by time.

{ANSWER_LEGEND}
- **batch, seq**: sequences of one forward pass, and their length in tokens with padding.
- **p50 ms**: median time of one forward pass with inputs on the device, and its 95% interval in brackets. On a GPU it
  is GPU time by events, on a CPU host time. With several processes it is the geometric mean of their medians, and the
  interval covers another process too. With one process the interval covers only that process.
- **graph**: the same pass as a replayed CUDA graph.
- **seq/s, tokens/s**: throughput of passes that run back to back, plain or graph, whichever is faster. Padding does not
  count.
- **cosine**: smallest cosine, over 8 sequences, between mean-pooled outputs and the FP32 reference.
- **TFLOP/s** (INT8: TOP/s): operations of the model's products per second of passes back to back, by the formula in
  `backends/model/encoder_sizes.py`. Padding counts where it is computed; with packed tokens it does not.
- **% of ceiling**: share of the fastest product of that precision in `ceilings.md` of the same machine.
- **name of a task**: score on that task, and the difference from FP32 in brackets.
- **p90 ms, p99 ms**: percentiles over the samples of all processes; empty below 20 and 200 samples.
- **enqueue µs**: host time until the call returns, on an idle device.
- **request p50 ms**: median host time of a request: token ids in host memory in, answer in host memory out.
- **tokenize p50 ms**: median time to make the token ids of the batch from texts. All rows with these texts share it.
- **text request p50 ms**: tokenize, and request, plain or graph, whichever is faster.
- **peak MB**: largest memory of the process until the end of that shape: device memory, or resident memory on a CPU.
- **mJ/seq**: energy of passes that run back to back, from the GPU's counter.
- **processes, samples**: fresh processes that measured, and the samples of p50 in all of them.
- **threads**: CPU threads that the backend used.
- **padding**: share of the input tokens that are padding.
- **build s, engine MB**: build time and size of the TensorRT engine.
- **version**: library and version of the backend.
{PARTS_LEGEND}
{ROW_LEGEND}
{NOTES_LEGEND}
- **fastest**: lowest time of its shape, plain or graph. Several rows are fastest if the spread between processes
  explains their difference. A row of one process is compared by the spread between equal processes of its kind
  (`suites/statistics/process_noise.json`).
- **cannot win**: the row was not steady after warm-up, the GPU throttled below its power limit, or other processes
  used the device (on a CPU: more than 5% of the CPU time). If such a row is the fastest, no row is called fastest.
- **at the power limit**: the GPU lowered its clocks to stay within its power limit, as large products make it do.
- **invalid**: the outputs contain NaN, or are further from FP32 than the precision explains (cosine below 0.99, for
  INT8 and FP8 below 0.9), or are much further from FP32 than at another shape. A row is also invalid if it loses more
  on a task than the tolerance, or if it failed on the task."""


def _workload(record: Record, name: str) -> tuple[str, ...]:
    cell = record.cell
    if cell.model == "none":
        return ("no model",)
    return (name, f"{cell.weights} weights", f"{cell.lengths['distribution']} lengths{output_text(cell)}")


def _tokens(records: Sequence[Record]) -> str:
    """Return the kinds of token ids. A record with inputs names the kind that "auto" selected."""
    kinds = {r.artifacts.input_notes.tokens for r in records if r.artifacts.inputs}
    return " or ".join(sorted(kinds or {str(r.cell.lengths["tokens"]) for r in records}))


def _rows(record: Record, common: Distinctions, scores: Judged, rank: Rank, ceilings: Sequence[Record]) -> list[Row]:
    """Return a row for each measured shape, and a row with the reason if the cell did not end well."""
    cell, options = record.cell, configuration(record, common.of(record))
    rows = [_row(figures, options, ceilings) for figures in latency_rows([record], scores, rank)]
    if not rows or record.outcome != OK:
        notes = notes_cell(options, f"{record.outcome}: {record.reason or 'it has no time to rank'}")
        named = {"backend": cell.backend, "precision": cell.precision, "notes": notes}
        rows.append(Row((1 << 30, 0, True, 0.0, f"{cell.backend} {cell.precision} {cell.id}"), named))
    return rows


def _row(row: LatencyRow, options: str, ceilings: Sequence[Record]) -> Row:
    cell, wrong = row.record.cell, row.problems
    invalid = f"**invalid**: {'; '.join(wrong)}" if wrong else ""
    values = (
        cell.backend, cell.precision, str(row.batch), str(row.sequence),
        _median(row.times.get(False)), _median(row.times.get(True)),
        _rate(row.batch, row.pace), _cosine(row), _rate(row.tokens, row.pace), *_achieved(row, ceilings),
        _megabytes(row.peak_bytes),
        "" if row.energy_mj is None else f"{row.energy_mj:.2f}",
        str(row.best.processes), str(row.best.count),
        _ms(row.percentile(90, False)), _ms(row.percentile(99, False)), _ms(row.percentile(99, True)),
        _microseconds(row.enqueue(False)), _microseconds(row.enqueue(True)),
        _ms(row.request(False)), _ms(row.request(True)), _ms(row.tokenize), _ms(row.text_request),
        str(row.threads or ""), _padding(row), *_engine(row.record), cell.release,
        notes_cell(options, *_notes(row), invalid),
    )  # fmt: skip
    return Row(
        key=(row.sequence, row.batch, bool(wrong), row.best.p50, cell.id),
        cells={
            **dict(zip(COLUMNS, values, strict=True)),
            **{task: _score(scores) for task, scores in row.tasks.items()},
        },
        figures=row,
    )


def _score(scores: Scores) -> str:
    if scores.failure:
        return scores.failure.partition(":")[0]
    figures = scores.result.figures if scores.result and not scores.result.nonfinite else None
    return f"{figures.value:.4f} ({figures.difference:+.4f})" if figures else "NaN"


def _median(time: Estimate | None) -> str:
    if time is None:
        return ""
    return f"{milliseconds(time.p50)} [{milliseconds(time.low)}, {milliseconds(time.high)}]"


def _ms(time: float | None) -> str:
    return "" if time is None else milliseconds(time)


def _microseconds(time: float | None) -> str:
    return "" if time is None else f"{time / 1e3:.0f}"


def _rate(count: int, nanoseconds: float) -> str:
    return f"{count / nanoseconds * 1e9:,.0f}" if nanoseconds > 0 else ""


def _achieved(row: LatencyRow, ceilings: Sequence[Record]) -> tuple[str, str]:
    """Return the operations per second and their share of the ceiling; empty if they are not known."""
    rate = achieved(row)
    percent = share(rate, ceiling(row.record, ceilings))
    return "" if rate is None else digits(rate), "" if percent is None else f"{digits(percent)}%"


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:,.0f}"


def _cosine(row: LatencyRow) -> str:
    return "NaN" if row.nonfinite else "" if row.cosine is None else f"{row.cosine:.5f}"


def _padding(row: LatencyRow) -> str:
    computed = row.batch * row.sequence
    return f"{1 - row.tokens / computed:.0%}" if row.tokens < computed else ""


def _engine(record: Record) -> tuple[str, str]:
    """Return build seconds and megabytes of an engine; empty for other artifacts."""
    built = record.artifacts.built
    if built is None or built.notes.engine_bytes is None:
        return "", ""
    return f"{built.seconds:.0f}", f"{built.notes.engine_bytes / 1e6:,.0f}"


def _notes(row: LatencyRow) -> list[str]:
    reason = row.record.facts.of_shape(row.shape_name).no_cuda_graph
    graphs = f"no CUDA graph: {reason}" if reason else ""
    return [origin_note(row.record), products_not_int8(row.record), graphs, power_note(row.record, {row.shape})]


TABLES = {
    "latency": Table("suites.latency.tables:latency_tables", ("records", "accuracy", "rank", "ceilings")),
    "gpu_and_request": Table("suites.latency.gpu_and_request:gpu_and_request_tables", ("records", "accuracy")),
    "workloads": Table("suites.latency.workload_tables:workload_tables", ("records", "accuracy", "ceilings")),
    "kernels": Table("suites.layers.kernel_tables:kernel_tables", ("folder",), separate=True),
}

END_TABLES = "suites.latency.ranking_end_tables:latency_end_tables"
"""Function that makes the short tables at the end of a run."""
