"""Records of precision searches to markdown: every step with what it gives and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from suites.records.record import GPU, LATENCY, Record
from suites.records.results_folder import MachineFolder
from suites.statistics.stats import typical
from suites.statistics.winners import over, quickest
from suites.tables.markdown import by_machine, joined, markdown, one_machine, profiles_of
from suites.tables.models import model_names, origin_note

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
than that of the first one, by shape, plain or as a graph, whichever is faster; a tie where the spread between processes
explains the difference."""


def search_tables(records: Iterable[Record], folder: MachineFolder) -> str:
    """All records in markdown: one section a machine, one table a search. The folder has the records of the steps."""
    return by_machine("Precision searches", LEGEND, records, lambda group: _section(group, folder))


def _section(records: Sequence[Record], folder: MachineFolder) -> str:
    names = model_names(records)
    lines = ["", one_machine(records)]
    for record in sorted(records, key=lambda r: r.cell.id):
        cell, held = record.cell, record.scores["held"]
        steps = record.scores["steps"]
        nothing = _timed(folder, next(step for step in steps if not step["held"]))
        rows = [_row(record, folder, number, step, nothing) for number, step in enumerate(steps, 1)]
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


def _timed(folder: MachineFolder, step: Mapping[str, Any]) -> Record | None:
    return folder.record("latency", step["latency"]) if step["latency"] else None


def _row(
    record: Record, folder: MachineFolder, number: int, step: Mapping[str, Any], nothing: Record | None
) -> list[str]:
    timed = _timed(folder, step)
    return [
        str(number),
        _parts(step["held"], len(record.scores["parts"])),
        "yes" if step["content"] else "no",
        *_judgement(folder.record("accuracy", step["accuracy"])),
        *(_times(timed, graph) for graph in (False, True)),
        _over(timed, nothing) if step["held"] else "",
    ]


def _judgement(judged: Record | None) -> list[str]:
    """Metric, difference and smallest cosine of a step; its record may be missing or damaged."""
    if judged is None or "nonfinite" not in judged.scores:
        return ["no record", "", ""]
    scores = judged.scores
    if scores["nonfinite"]:
        return [f"{scores['nonfinite']} NaN or Inf", "", ""]
    metric = f"{scores['metric']} {scores['value']:.4f}"
    return [metric, f"{scores['difference']:+.4f}", f"{scores['cosine_min']:.5f}"]


def _parts(held: Sequence[str], of: int) -> str:
    if len(held) == of:
        return "all"
    names = ", ".join(part.removeprefix("*/").removesuffix("/*") for part in held)
    return names if 0 < len(held) <= 6 else f"{len(held)} of {of} parts" if held else "none"


def _over(timed: Record | None, nothing: Record | None) -> str:
    if timed is None or nothing is None:
        return ""
    now, before = ({(m.batch, m.sequence): None for m in record.measurements} for record in (timed, nothing))
    phases = GPU, LATENCY
    return ", ".join(
        f"{batch}x{longest}: "
        f"{over(quickest(timed, [(batch, longest)], phases), quickest(nothing, [(batch, longest)], phases))}"
        for batch, longest in now
        if (batch, longest) in before
    )


def _times(record: Record | None, graph: bool) -> str:
    if record is None:
        return ""
    phase = GPU if any(m.phase == GPU for m in record.measurements) else LATENCY
    found: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for m in record.measurements:
        if (m.phase, m.cuda_graph) == (phase, graph):
            found.setdefault((m.batch, m.sequence), []).append(m.samples)
    return ", ".join(f"{batch}x{longest}: {typical(times) / 1e6:.3f}" for (batch, longest), times in found.items())
