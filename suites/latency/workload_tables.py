"""Latency records on sequences of real lengths to markdown: padded, sorted into passes and packed, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from suites.records.cell import PROFILES
from suites.records.record import GPU, LATENCY, OK, SUSTAINED, Record
from suites.statistics.validity import Scores, Way, judged, problems, way
from suites.statistics.winners import Contender, fastest, lost_by, mark, quickest, why_excluded
from suites.tables.distinctions import Distinctions, distinctions
from suites.tables.markdown import by_machine, joined, markdown, one_machine, profiles_of
from suites.tables.models import model_names, origin_note

COLUMNS = (
    "batch", "longest", "backend", "precision", "layout", "profiles", "passes", "tokens", "waste",
    "ms a batch", "seq/s", "x padded", "tokens/s", "notes",
)  # fmt: skip

LEGEND = """\
One row is one way of running a batch of sequences whose lengths were drawn from a distribution. *layout*: padded to the
longest that is allowed, sorted by length and run in several passes that are each padded to their own longest, or packed
end to end without padding. *tokens*: without padding; *waste*: the share of all computed tokens that is padding.
*ms a batch*: the sum over its passes of the median time, plain or as a graph, whichever is faster; what it costs to
change the shape between passes is not in it. seq/s and tokens/s (padding not counted): of passes run back to back.
*x padded*: seq/s over those of the quickest padded row of the same batch, backend and precision. **fastest**: the most
sequences a second of its batch, among rows that are not **invalid**; several where the spread between processes
explains their difference. A row that was not steady, throttled or disturbed **cannot win**."""


def workload_tables(records: Iterable[Record], accuracy: Iterable[Record] = ()) -> str:
    """All records whose sequences differ in length: one section a machine, one table a model and distribution in it.

    Empty if there are none. Records of the accuracy suite mark the paths that are worth too little.
    """
    wanted = [r for r in records if r.cell.lengths["distribution"] != "full" and r.cell.model != "none"]
    scores = judged(accuracy)
    return by_machine("Workloads", LEGEND, wanted, lambda group: _section(group, scores)) if wanted else ""


def _section(records: Sequence[Record], scores: Mapping[Way, Mapping[str, Scores]]) -> str:
    lines = ["", one_machine(records)]
    names = model_names(records)

    def workload_of(record: Record) -> tuple[str, str, str]:
        return names(record), record.cell.weights, _lengths(record)

    for (model, weights, lengths), members in groupby(sorted(records, key=workload_of), key=workload_of):
        group = list(members)
        told = distinctions(group, (*PROFILES, "layout"))
        rows = [row for record in group for row in _rows(record, told, scores.get(way(record), {}))]
        title, table = f"### {model}, {weights} weights, {lengths} lengths", markdown(COLUMNS, _marked(rows))
        lines += ["", title, *told.caption(), "", table]
    return "\n".join(lines)


def _lengths(record: Record) -> str:
    lengths = record.cell.lengths
    known = {name: lengths[name] for name in ("low", "mean", "sigma") if name in lengths}
    if lengths["distribution"] in ("histogram", "file"):
        known = {"mean": f"{_mean(lengths):.1f}"}
    details = f" ({', '.join(f'{name} {value}' for name, value in known.items())})" if known else ""
    return f"{lengths['distribution']}{details}"


def _mean(lengths: Mapping[str, Any]) -> float:
    values, counts = lengths["values"], lengths.get("counts") or [1] * len(lengths["values"])
    return float(sum(v * n for v, n in zip(values, counts, strict=True)) / sum(counts))


Row = tuple[tuple[int, int], Contender | None, Mapping[str, str]]
"""Longest sequence and batch, time of a batch back to back (None if its outputs are not valid), and the cells by
column."""


def _rows(record: Record, told: Distinctions, tasks: Mapping[str, Scores]) -> list[Row]:
    cell = record.cell
    rows = [_row(record, batch, longest, tasks) for batch, longest in cell.shapes] if record.outcome == OK else []
    notes = "" if rows else f"{record.outcome}: {record.reason}"
    shared = {"backend": cell.backend, "precision": cell.precision, "profiles": profiles_of(record)}
    cubic = record.artifacts.get("built", {}).get("notes", {}).get("gelu") == "cubic"
    head = joined(
        told.of(record), cell.release, origin_note(record), "GELU as a cubic, another function" if cubic else "", notes
    )
    return [
        (key, pace, {**shared, **cells, "notes": joined(head, cells.get("notes", ""))})
        for key, pace, cells in rows or [((1 << 30, 0), None, {})]
    ]


def _row(record: Record, batch: int, longest: int, tasks: Mapping[str, Scores]) -> Row:
    notes, name = record.artifacts["inputs"]["notes"], f"{batch}x{longest}"
    whole = [[batch, longest, notes["shapes"][name]["tokens"]]] if name in notes["shapes"] else []
    passes = notes.get("passes", {}).get(name, whole)
    shapes, tokens = [(rows, longest) for rows, longest, _ in passes], sum(count for *_, count in passes)
    packed = record.cell.backend == "torch_packed" or record.cell.options.get("layout") == "packed"
    computed = tokens if packed else sum(rows * longest for rows, longest in shapes)
    time = quickest(record, shapes, (GPU, LATENCY)).p50
    pace = quickest(record, shapes, (SUSTAINED, LATENCY))
    wrong = problems(record, shapes, tasks)
    cells = {
        "batch": str(batch),
        "longest": str(longest),
        "layout": "packed" if packed else "sorted" if len(shapes) > 1 else "padded",
        "passes": _counted(shapes) if len(shapes) > 1 else "",
        "tokens": f"{tokens:,}",
        "waste": f"{1 - tokens / computed:.0%}",
        "ms a batch": f"{time / 1e6:.3f}",
        "seq/s": f"{batch / pace.p50 * 1e9:,.0f}",
        "tokens/s": f"{tokens / pace.p50 * 1e9:,.0f}",
        "notes": f"**invalid**: {'; '.join(wrong)}" if wrong else "",
    }
    return (longest, batch), None if wrong else Contender(pace, "; ".join(why_excluded(record, shapes))), cells


def _counted(shapes: Sequence[tuple[int, int]]) -> str:
    """Equal shapes together, e.g. "2 of 32x16, 32x48"."""
    runs = [(shape, len(list(members))) for shape, members in groupby(shapes)]
    return ", ".join(f"{f'{count} of ' if count > 1 else ''}{rows}x{longest}" for (rows, longest), count in runs)


def _marked(rows: Sequence[Row]) -> list[list[str]]:
    """Cells in the order of the columns, the fastest of each batch with a note; one alone is not called so."""
    table = []
    ordered = sorted(rows, key=lambda row: (row[0], row[2]["backend"], row[2]["precision"], row[2]["notes"]))
    for _, members in groupby(ordered, key=lambda row: row[0]):
        group = list(members)
        valid = [row for row in group if row[1] is not None]
        wins = fastest([contender for _, contender, _ in valid if contender is not None], len(group))
        winners = [cells for (*_, cells), won in zip(valid, wins, strict=True) if won]
        lowest = min((contender.time.p50 for _, contender, _ in valid if contender is not None), default=0.0)
        for _, contender, cells in group:
            won = mark(len(winners)) if any(cells is one for one in winners) else ""
            lost = lost_by(contender, lowest) if contender is not None else ""
            gain = _gain(contender, cells, group)
            shown = {**cells, "notes": joined(won, cells["notes"], lost), "x padded": gain}
            table.append([shown.get(name, "") for name in COLUMNS])
    return table


def _gain(contender: Contender | None, cells: Mapping[str, str], group: Sequence[Row]) -> str:
    """How many times the sequences a second of the quickest padded row of the same backend and precision; empty for
    that row, for one that does not count, and where there is none."""
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
