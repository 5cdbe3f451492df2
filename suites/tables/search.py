"""Records of precision searches to markdown: every step with what it gives and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from suites.record import GPU, LATENCY, Record, read_record
from suites.stats import summarize
from suites.tables.models import model_names, origin_note
from suites.tables.rows import by_machine, joined, markdown, one_machine, profiles_of

COLUMNS = (
    "step",
    "held back",
    "content",
    "metric",
    "difference",
    "cosine min",
    "p50 ms by shape",
    "graph p50 ms",
    "over nothing held",
)

LEGEND = """\
Which parts of a model are held in FP32, or left out of quantization, until the rest is accurate enough: *content* is a
step whose task and smallest cosine are within the tolerance of the search. Steps stand in the order in which they were
tried; the line below a table is what the search ended with. *over nothing held*: what a step's forward pass takes more
than that of the first one, by shape, plain or as a graph, whichever is faster."""


def search_tables(records: Iterable[Record], results: Path) -> str:
    """All records in markdown: one section a machine, one table a search.

    Raises:
        FileNotFoundError: the record of a step is not under `results`.
    """
    return by_machine("Precision searches", LEGEND, records, lambda group: _section(group, results))


def _section(records: Sequence[Record], results: Path) -> str:
    names = model_names(records)
    lines = ["", one_machine(records)]
    for record in sorted(records, key=lambda r: r.cell.id):
        cell, held = record.cell, record.scores["held"]
        steps = record.scores["steps"]
        nothing = _timed(record, results, next(step for step in steps if not step["held"]))
        rows = [_row(record, results, number, step, nothing) for number, step in enumerate(steps, 1)]
        wanted = record.scores
        task = f"{cell.lengths['task']} within {wanted['tolerance']:g}, cosine at least {wanted['cosine']:g}"
        title = " ".join((cell.backend, cell.release, cell.precision, profiles_of(record)))
        none = "Nothing was enough yet." if wanted.get("ended") else "Nothing is enough."
        answer = none if held is None else f"Held back: {_parts(held, len(record.scores['parts']))}."
        answer += f" {record.reason[:1].upper()}{record.reason[1:]}." if record.reason else ""
        lines += [
            "",
            f"### {joined(names(record), origin_note(record))}, {title.strip()}: {task}",
            "",
            markdown(COLUMNS, rows),
            "",
            answer,
        ]
    return "\n".join(lines)


def _timed(record: Record, results: Path, step: Mapping[str, Any]) -> Record | None:
    folder = results / "records" / record.environment["machine"] / "latency"
    return read_record(folder / f"{step['latency']}.json") if step["latency"] else None


def _row(record: Record, results: Path, number: int, step: Mapping[str, Any], nothing: Record | None) -> list[str]:
    folder = results / "records" / record.environment["machine"]
    scores = read_record(folder / "accuracy" / f"{step['accuracy']}.json").scores
    timed = _timed(record, results, step)
    broken = f"{scores['nonfinite']} NaN or Inf" if scores["nonfinite"] else ""
    return [
        str(number),
        _parts(step["held"], len(record.scores["parts"])),
        "yes" if step["content"] else "no",
        broken or f"{scores['metric']} {scores['value']:.4f}",
        "" if broken else f"{scores['difference']:+.4f}",
        "" if broken else f"{scores['cosine_min']:.5f}",
        *(_times(timed, graph) for graph in (False, True)),
        _over(timed, nothing) if step["held"] else "",
    ]


def _parts(held: Sequence[str], of: int) -> str:
    if len(held) == of:
        return "all"
    names = ", ".join(part.removeprefix("*/").removesuffix("/*") for part in held)
    return names if 0 < len(held) <= 6 else f"{len(held)} of {of} parts" if held else "none"


def _over(timed: Record | None, nothing: Record | None) -> str:
    if timed is None or nothing is None:
        return ""
    now, before = _quickest(timed), _quickest(nothing)
    shapes = [shape for shape in now if shape in before]
    return ", ".join(f"{batch}x{longest}: {now[batch, longest] / before[batch, longest] - 1:+.1%}"
                     for batch, longest in shapes)  # fmt: skip


def _quickest(record: Record) -> dict[tuple[int, int], float]:
    """Median in ns by shape, plain or as a graph."""
    phase = GPU if any(m.phase == GPU for m in record.measurements) else LATENCY
    found: dict[tuple[int, int], float] = {}
    for m in record.measurements:
        if m.phase == phase:
            shape, time = (m.batch, m.sequence), summarize(m.samples).p50
            found[shape] = min(found.get(shape, time), time)
    return found


def _times(record: Record | None, graph: bool) -> str:
    if record is None:
        return ""
    phase = GPU if any(m.phase == GPU for m in record.measurements) else LATENCY
    found = [m for m in record.measurements if (m.phase, m.cuda_graph) == (phase, graph)]
    return ", ".join(f"{m.batch}x{m.sequence}: {summarize(m.samples).p50 / 1e6:.3f}" for m in found)
