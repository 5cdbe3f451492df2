"""Records of precision searches to markdown: accuracy and time of every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from suites.records.measurement import GPU, LATENCY
from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.records.search_result import SearchResult, SearchStep
from suites.statistics.stats import typical
from suites.statistics.winners import fastest_time, over
from suites.tables.markdown import by_machine, fitted, joined, one_machine, profiles_of
from suites.tables.models import model_names, origin_note
from suites.tasks.task_scores import TaskScores

COLUMNS = ("step", "kept in FP32", "passes", "metric", "difference", "cosine min")

BY_SHAPE = ("p50 ms", "graph p50 ms", "slowdown")
"""Columns that a table has for each shape."""


@dataclass(frozen=True)
class Row:
    """Cells of `COLUMNS`, and texts by shape of each name of `BY_SHAPE`."""

    head: Sequence[str]
    by_shape: tuple[Mapping[str, str], Mapping[str, str], Mapping[str, str]]


LEGEND = """\
A search selects the parts of a model that stay in FP32 or without quantization, until the rest is accurate enough. The
rows are its steps, in the order of the search. The line below a table is the result.

- **kept in FP32**: parts that this step kept in FP32. A number in brackets refers to the list below the table.
- **passes**: whether the task score and the smallest cosine are within the tolerance of the search.
- **metric, difference, cosine min**: score on the task, its difference from FP32, and smallest cosine to FP32.
- **p50 ms, graph p50 ms**: median time of a forward pass at each shape, plain and as a replayed CUDA graph.
- **slowdown**: extra time relative to the first step at each shape, plain or graph, whichever is faster. A tie means
  that the spread between processes explains the difference."""


def search_tables(records: Iterable[Record], folder: MachineFolder) -> str:
    """Return one section for each machine, with one table for each search. The folder has the records of the steps."""
    return by_machine("Precision searches", LEGEND, records, lambda group: _section(group, folder))


def _section(records: Sequence[Record], folder: MachineFolder) -> str:
    names = model_names(records)
    lines = ["", one_machine(records)]
    for record in sorted(records, key=lambda r: r.cell.id):
        cell, result = record.cell, _result(record)
        task = f"{cell.lengths['task']} within {result.tolerance:g}, cosine at least {result.cosine:g}"
        title = " ".join((cell.backend, cell.release, cell.precision, profiles_of(record)))
        heading = f"### {joined(names(record), origin_note(record))}, {title.strip()}: {task}"
        lines += ["", heading, "", _table(record, folder), "", _answer(record)]
    return "\n".join(lines)


def _result(record: Record) -> SearchResult:
    assert isinstance(record.result, SearchResult)
    return record.result


def _table(record: Record, folder: MachineFolder) -> str:
    steps = _result(record).steps
    unmodified = _timed(folder, next(step for step in steps if not step.kept))
    rows = [_row(record, folder, number, step, unmodified) for number, step in enumerate(steps, 1)]
    columns = [
        (f"{name} {shape}", index, shape)
        for index, name in enumerate(BY_SHAPE)
        for shape in dict.fromkeys(shape for row in rows for shape in row.by_shape[index])
    ]
    header = [*COLUMNS, *(name for name, *_ in columns)]
    cells = [[*row.head, *(row.by_shape[index].get(shape, "") for _, index, shape in columns)] for row in rows]
    return fitted(header, cells, 1, numbered=("kept in FP32",), repeat_keys=True)


def _answer(record: Record) -> str:
    """Return the line below a table with the result of the search."""
    result = _result(record)
    none = "The search has no result yet." if result.ended else "No selection passes."
    answer = none if result.kept is None else f"Kept in FP32: {_parts(result.kept, len(result.parts))}."
    return answer + (f" {record.reason[:1].upper()}{record.reason[1:]}." if record.reason else "")


def _timed(folder: MachineFolder, step: SearchStep) -> Record | None:
    return folder.record("latency", step.latency) if step.latency else None


def _row(record: Record, folder: MachineFolder, number: int, step: SearchStep, first: Record | None) -> Row:
    timed = _timed(folder, step)
    head = [
        str(number),
        _parts(step.kept, len(_result(record).parts)),
        "yes" if step.passes else "no",
        *_judgement(folder.record("accuracy", step.accuracy)),
    ]
    return Row(head, (_times(timed, False), _times(timed, True), _slowdowns(timed, first) if step.kept else {}))


def _judgement(judged: Record | None) -> list[str]:
    """Return metric, difference and smallest cosine of a step. Its record may be missing or damaged."""
    if judged is None or not isinstance(judged.result, TaskScores):
        return ["no record", "", ""]
    figures = judged.result.figures
    if judged.result.nonfinite or figures is None:
        return [f"{judged.result.nonfinite} NaN or Inf", "", ""]
    return [f"{figures.metric} {figures.value:.4f}", f"{figures.difference:+.4f}", f"{figures.cosine_min:.5f}"]


def _parts(kept: Sequence[str], count: int) -> str:
    """Return the names of a few parts, or the number of many. The model has `count` parts."""
    if len(kept) == count:
        return "all"
    names = ", ".join(part.removeprefix("*/").removesuffix("/*") for part in kept)
    return names if 0 < len(kept) <= 6 else f"{len(kept)} of {count} parts" if kept else "none"


def _slowdowns(timed: Record | None, first: Record | None) -> dict[str, str]:
    """Return the extra time over the first step by shape."""
    if timed is None or first is None:
        return {}
    shapes, others = ({(m.batch, m.sequence): None for m in record.measurements} for record in (timed, first))
    phases = GPU, LATENCY
    return {
        f"{batch}x{longest}": over(
            fastest_time(timed, [(batch, longest)], phases), fastest_time(first, [(batch, longest)], phases)
        )
        for batch, longest in shapes
        if (batch, longest) in others
    }


def _times(record: Record | None, graph: bool) -> dict[str, str]:
    """Return the median time in ms by shape."""
    if record is None:
        return {}
    phase = GPU if any(m.phase == GPU for m in record.measurements) else LATENCY
    samples: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for m in record.measurements:
        if (m.phase, m.cuda_graph) == (phase, graph):
            samples.setdefault(m.shape, []).append(m.samples)
    return {f"{batch}x{longest}": f"{typical(times) / 1e6:.3f}" for (batch, longest), times in samples.items()}
