"""Latency records on sequences of real lengths to markdown: padded, sorted into passes, and packed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from backends.json_codec import from_json
from suites.latency.achieved import achieved_in_passes, ceiling, packs_tokens, share
from suites.records.cell import PROFILES
from suites.records.measurement import GPU, LATENCY, SUSTAINED
from suites.records.record import OK, Record
from suites.statistics.validity import ComputedPath, Scores, judged, problems, way
from suites.statistics.winners import (
    Contender,
    cannot_win_note,
    fastest,
    fastest_measurements,
    fastest_time,
    mark,
    power_note,
    why_excluded,
)
from suites.tables.distinctions import Distinctions, distinctions
from suites.tables.markdown import (
    NOTES_LEGEND,
    ROW_LEGEND,
    by_machine,
    configuration,
    digits,
    fitted,
    notes_cell,
    one_machine,
)
from suites.tables.models import model_names, origin_note, output_text

COLUMNS = (
    "backend", "precision", "layout", "batch", "max length", "batch ms", "seq/s", "speedup", "tokens/s", "TFLOP/s",
    "% of ceiling", "tokens", "padding", "passes", "version", "notes",
)  # fmt: skip

KEYS = COLUMNS.index("seq/s") + 1

LEGEND = f"""\
Each row is one method to run a batch of sequences whose lengths come from a distribution.

- **layout**: *padded* to the longest allowed length; *sorted* by length into several passes, each padded to its own
  longest sequence; or *packed* end to end without padding.
- **batch, max length**: sequences of a batch, and the longest allowed length in tokens.
- **batch ms**: sum over the passes of a batch of the median time, plain or graph, whichever is faster. The cost of a
  change of shape between passes is not included.
- **seq/s, tokens/s**: throughput of passes that run back to back. Padding does not count.
- **TFLOP/s** (INT8: TOP/s), **% of ceiling**: operations of the model's products, and their share of the fastest
  product of that precision, as in `latency.md`.
- **speedup**: seq/s relative to the fastest padded row of the same batch, backend and precision.
- **tokens**: tokens of a batch without padding.
- **padding**: share of the computed tokens that are padding.
- **passes**: shapes of the passes, if there are several.
- **version**: library and version of the backend.
{ROW_LEGEND}
{NOTES_LEGEND}
- **fastest**: most sequences per second of its batch, among rows that are not invalid. Several rows are fastest if the
  spread between processes explains their difference.
- **cannot win**: the row was not steady after warm-up, the GPU throttled below its power limit, or other processes
  used the device.
- **invalid**: the outputs are wrong, or the row fails a task. `latency.md` has the rules."""


def workload_tables(records: Iterable[Record], accuracy: Iterable[Record] = (), ceilings: Sequence[Record] = ()) -> str:
    """Return one section for each machine, with one table for each model and length distribution.

    Empty without records whose sequences differ in length. Records of the accuracy suite mark rows whose loss is too
    large. Records of suite=ceilings of the same machine give shares.
    """
    mixed = [r for r in records if r.cell.lengths["distribution"] != "full" and r.cell.model != "none"]
    scores = judged(accuracy)
    return by_machine("Workloads", LEGEND, mixed, lambda group: _section(group, scores, ceilings)) if mixed else ""


def _section(
    records: Sequence[Record], scores: Mapping[ComputedPath, Mapping[str, Scores]], ceilings: Sequence[Record]
) -> str:
    lines = ["", one_machine(records)]
    names = model_names(records)

    def workload_of(record: Record) -> tuple[str, str, str]:
        return names(record), record.cell.weights, f"{_lengths(record)} lengths{output_text(record.cell)}"

    for (model, weights, lengths), members in groupby(sorted(records, key=workload_of), key=workload_of):
        group = list(members)
        common = distinctions(group, (*PROFILES, "layout"))
        rows = [row for record in group for row in _rows(record, common, scores.get(way(record), {}), ceilings)]
        title, table = f"### {model}, {weights} weights, {lengths}", fitted(COLUMNS, _marked(rows), KEYS)
        lines += ["", title, *common.caption(), "", table]
    return "\n".join(lines)


def _lengths(record: Record) -> str:
    lengths = record.cell.lengths
    parameters = {name: lengths[name] for name in ("low", "mean", "sigma") if name in lengths}
    if lengths["distribution"] in ("histogram", "file"):
        parameters = {"mean": f"{_mean(lengths):.1f}"}
    details = f" ({', '.join(f'{name} {value}' for name, value in parameters.items())})" if parameters else ""
    return f"{lengths['distribution']}{details}"


def _mean(lengths: Mapping[str, object]) -> float:
    values = from_json(list[float], lengths["values"], "values")
    counts = from_json(list[float], lengths.get("counts") or [1] * len(values), "counts")
    return float(sum(v * n for v, n in zip(values, counts, strict=True)) / sum(counts))


Row = tuple[tuple[int, int], Contender | None, Mapping[str, str]]
"""Longest sequence and batch; time of a batch back to back, None if its outputs are invalid; and cells by column."""


def _rows(record: Record, common: Distinctions, tasks: Mapping[str, Scores], ceilings: Sequence[Record]) -> list[Row]:
    cell = record.cell
    measured = cell.shapes if record.outcome == OK else ()
    rows = [workload_row(record, batch, longest, tasks, ceilings) for batch, longest in measured]
    outcome = "" if rows else f"{record.outcome}: {record.reason}"
    shared = {"backend": cell.backend, "precision": cell.precision, "version": cell.release}
    cubic = record.artifacts.built_notes.gelu == "cubic"
    notes = (
        configuration(record, common.of(record)),
        origin_note(record),
        "GELU is replaced by a cubic function" if cubic else "",
        outcome,
    )
    return [
        (key, pace, {**shared, **cells, "notes": notes_cell(*notes, cells.get("notes", ""))})
        for key, pace, cells in rows or [((1 << 30, 0), None, {})]
    ]


def workload_row(
    record: Record, batch: int, longest: int, tasks: Mapping[str, Scores], ceilings: Sequence[Record] = ()
) -> Row:
    """Return the row of a measured cell at one of its shapes."""
    notes, name = record.artifacts.input_notes, f"{batch}x{longest}"
    whole = ((batch, longest, notes.shapes[name].tokens),) if name in notes.shapes else ()
    passes = notes.passes.get(name, whole)
    shapes, tokens = [(rows, longest) for rows, longest, _ in passes], sum(count for *_, count in passes)
    packed = packs_tokens(record)
    computed = tokens if packed else sum(rows * longest for rows, longest in shapes)
    time = fastest_time(record, shapes, (GPU, LATENCY)).p50
    pace = fastest_time(record, shapes, (SUSTAINED, LATENCY))
    wrong = problems(record, shapes, tasks)
    rate = achieved_in_passes(record, shapes, tokens, pace.p50)
    percent = share(rate, ceiling(record, ceilings))
    cells = {
        "batch": str(batch),
        "max length": str(longest),
        "layout": "packed" if packed else "sorted" if len(shapes) > 1 else "padded",
        "passes": _counted(shapes) if len(shapes) > 1 else "",
        "tokens": f"{tokens:,}",
        "padding": f"{1 - tokens / computed:.0%}",
        "batch ms": f"{time / 1e6:.3f}",
        "seq/s": f"{batch / pace.p50 * 1e9:,.0f}",
        "tokens/s": f"{tokens / pace.p50 * 1e9:,.0f}",
        "TFLOP/s": "" if rate is None else digits(rate),
        "% of ceiling": "" if percent is None else f"{digits(percent)}%",
        "notes": notes_cell(f"**invalid**: {'; '.join(wrong)}" if wrong else "", power_note(record, shapes)),
    }
    if wrong:
        return (longest, batch), None, cells
    phases = ((SUSTAINED, LATENCY), (GPU, LATENCY))
    measured = [m for shape in shapes for choice in phases for m in fastest_measurements(record, shape, choice)]
    excluded = why_excluded(measured, record.cell.device == "cpu")
    return (longest, batch), Contender(pace, "; ".join(excluded)), cells


def _counted(shapes: Sequence[tuple[int, int]]) -> str:
    """Return the shapes with the count of equal ones, e.g. "2 of 32x16, 32x48"."""
    runs = [(shape, len(list(members))) for shape, members in groupby(shapes)]
    return ", ".join(f"{f'{count} of ' if count > 1 else ''}{rows}x{longest}" for (rows, longest), count in runs)


def _marked(rows: Sequence[Row]) -> list[list[str]]:
    """Return the cells in the order of the columns. A note marks the fastest row of each batch with several rows."""
    table = []
    ordered = sorted(rows, key=lambda row: (row[0], row[2]["backend"], row[2]["precision"], row[2]["notes"]))
    for _, members in groupby(ordered, key=lambda row: row[0]):
        group = list(members)
        valid = [row for row in group if row[1] is not None]
        wins = fastest([contender for _, contender, _ in valid if contender is not None], len(group))
        winners = [cells for (*_, cells), won in zip(valid, wins, strict=True) if won]
        lowest = min((contender.time.p50 for _, contender, _ in valid if contender is not None), default=0.0)
        for _, contender, cells in group:
            won = mark(len(winners)) if any(cells is winner for winner in winners) else ""
            lost = cannot_win_note(contender, lowest) if contender is not None else ""
            gain = _gain(contender, cells, group)
            shown = {**cells, "notes": notes_cell(won, cells["notes"], lost), "speedup": gain}
            table.append([shown.get(name, "") for name in COLUMNS])
    return table


def _gain(contender: Contender | None, cells: Mapping[str, str], group: Sequence[Row]) -> str:
    """Return the speedup over the fastest padded row of the same backend and precision.

    Empty for that row, for an invalid row, and without a padded row.
    """
    same = ("backend", "precision")
    padded = [
        other.time.p50
        for _, other, others in group
        if other and others.get("layout") == "padded" and all(others[name] == cells[name] for name in same)
    ]
    if contender is None or not padded:
        return ""
    itself = cells.get("layout") == "padded" and contender.time.p50 == min(padded)
    return "" if itself else f"{min(padded) / contender.time.p50:.2f}"
