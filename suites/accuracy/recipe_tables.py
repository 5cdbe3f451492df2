"""Accuracy and latency of INT8 recipes to markdown: one table for each model, task and backend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from suites.records.cell import PROFILES
from suites.records.measurement import GPU, LATENCY
from suites.records.record import FAILED, OK, TIMEOUT, UNSUPPORTED, Record
from suites.statistics.stats import Estimate
from suites.statistics.validity import judged, loss, past_tolerance, problems, scores_of, way
from suites.statistics.winners import fastest_time, over
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
from suites.tables.models import model_names, origin_note, task_names
from suites.tasks.task_scores import TaskFigures

COLUMNS = (
    "activations", "recipe", "metric", "value", "difference [95% CI]", "verdict", "cosine min", "p50 ms", "shape",
    "slowdown", "notes",
)  # fmt: skip

KEYS = COLUMNS.index("difference [95% CI]") + 1

COMMON_OPTIONS = "common options"
"""The recipe of a row in which every option has its common value."""

LEGEND = f"""\
Each row is one method to quantize a model to INT8.

- **activations**: *signed* and symmetric, as TensorRT requires, or *unsigned* with a zero point, as x86 CPUs multiply.
  *dynamic*: each pass computes their ranges.
- **recipe**: options in which the row differs from most rows. A number in brackets refers to the list below the table.
- **difference**: score minus that of FP32, with a 95% interval by paired bootstrap. Rows are sorted by it. If the
  intervals of two rows overlap, their order may be chance.
- **verdict**: the conclusion that the interval supports.
- **cosine min**: smallest cosine to the outputs of FP32.
- **p50 ms, shape**: median time of a forward pass of the same engine or model, plain or graph, whichever is faster, at
  the largest measured shape.
- **slowdown**: extra time relative to the fastest valid row of the table. A tie means that the spread between processes
  explains the difference.
{ROW_LEGEND}
{NOTES_LEGEND}
- **invalid**: the row loses more than the tolerance of the task, or has no finite figure."""


WITHOUT_FIGURE = (FAILED, TIMEOUT, UNSUPPORTED)
"""Outcomes of recipes that are shown although they have no figure."""


def recipe_tables(accuracy: Iterable[Record], latency: Iterable[Record]) -> str:
    """Return one section for each machine, with one table for each model, task and backend.

    Empty without INT8 records that have a recipe and a task with a figure.
    """
    judging, timed = recipe_records(accuracy), _timed(latency)
    return by_machine("INT8 recipes", LEGEND, judging, lambda group: _section(group, timed)) if judging else ""


def recipe_records(accuracy: Iterable[Record]) -> list[Record]:
    """Return the accuracy records that are rows of a table of recipes."""
    # A backend without INT8 ends as unsupported, and its cell has no recipe.
    tried = [r for r in accuracy if r.cell.precision == "int8" and "quantization" in r.cell.options]
    tasks = {_task(r) for r in tried if _with_interval(r)}
    return [r for r in tried if _task(r) in tasks and (r.result or r.outcome in WITHOUT_FIGURE)]


def _with_interval(record: Record) -> tuple[TaskFigures, tuple[float, float]] | None:
    """Return the figures of a record and the interval of their difference; None if it has none."""
    scores = scores_of(record)
    figures = scores.figures if scores else None
    return (figures, figures.interval) if figures and figures.interval else None


def _timed(latency: Iterable[Record]) -> dict[str, Record]:
    """Return by path the latency record with the largest shape."""
    timed: dict[str, Record] = {}
    for record in latency:
        if record.cell.precision == "int8" and record.outcome == OK and "passes" not in record.cell.lengths:
            other = timed.setdefault(way(record), record)
            timed[way(record)] = max(other, record, key=lambda timing: (max(timing.cell.shapes), timing.cell.id))
    return timed


def by_table(records: Sequence[Record]) -> Iterator[tuple[str, list[Record]]]:
    """Yield the title and the records of each table of one machine."""
    models, tasks = model_names(records), task_names(records)

    def question_of(record: Record) -> tuple[str, ...]:
        cell = record.cell
        return models(record), f"{cell.weights} weights", tasks(record), f"{cell.backend} {cell.release}"

    for question, members in groupby(sorted(records, key=question_of), key=question_of):
        yield ", ".join(question), list(members)


def _section(records: Sequence[Record], timed: Mapping[str, Record]) -> str:
    lines = ["", one_machine(records)]
    for title, group in by_table(records):
        common = _distinctions(group)
        table = fitted(COLUMNS, recipe_rows(group, common, timed), KEYS, numbered=("recipe", "notes"))
        lines += ["", f"### {title}", *common.caption(), "", table]
    return "\n".join(lines)


def _distinctions(records: Sequence[Record]) -> Distinctions:
    return distinctions(records, (*PROFILES, "quantization.activation", *_one_rate(records)), sources_of(records))


def recipe_rows(
    records: Sequence[Record], common: Distinctions | None = None, timed: Mapping[str, Record] | None = None
) -> list[list[str]]:
    """Return the rows of a table in the order of `COLUMNS`, those with the smallest loss first."""
    common = common or _distinctions(records)
    times = {record.cell.id: _time(record, timed or {}) for record in records}
    fastest: dict[str, Estimate] = {}
    for shape, time, valid in times.values():
        if valid and time is not None:
            fastest[shape] = min(time, fastest.get(shape, time), key=lambda estimate: estimate.p50)
    ordered = sorted(records, key=_order)
    rows = []
    for record in ordered:
        scores, (shape, time, _) = scores_of(record), times[record.cell.id]
        wrong = past_tolerance(scores) if scores else ""
        notes = notes_cell(configuration(record, ""), origin_note(record), products_not_int8(record),
                           _same_file(common, record, records),
                           "" if scores else f"{record.outcome}: {record.reason}",
                           f"**invalid**: {wrong}" if wrong else "")  # fmt: skip
        head = [_activations(record), _recipe(common, record)]
        if (found := _with_interval(record)) is None:
            rows.append([*head, *[""] * (len(COLUMNS) - len(head) - 1), notes])
            continue
        figures, (low, high) = found
        rows.append([
            *head, figures.metric, f"{figures.value:.6f}", f"{figures.difference:+.5f} [{low:+.5f}, {high:+.5f}]",
            figures.verdict, f"{figures.cosine_min:.5f}", f"{time.p50 / 1e6:.3f}" if time else "", shape,
            over(time, fastest[shape]) if time and shape in fastest else "",
            notes,
        ])  # fmt: skip
    return rows


def _order(record: Record) -> tuple[float, str]:
    scores = scores_of(record)
    return loss(scores) if scores else math.inf, record.cell.id


def _recipe(common: Distinctions, record: Record) -> str:
    """Return the options without the name of their group.

    Missing options of an implicit or untrained recipe are left out. Where no row differs, the placement and the method
    are named.
    """
    own = record.cell.options["quantization"]
    explicit = own.get("scheme", "explicit") == "explicit"
    named = [option.removeprefix("quantization.") for option in common.of(record).split("; ")]
    shown = "; ".join(o for o in named if o != "qat_rate unset" and (explicit or not o.endswith(" unset")))
    if shown or common.caption():
        return shown or COMMON_OPTIONS
    return "; ".join(
        f"{name}={own[name]}" for name in ("scheme", "placement", "method") if own.get(name, "auto") != "auto"
    )


def _one_rate(records: Sequence[Record]) -> list[str]:
    """Return the name of the learning rate option if all trained models have the same rate."""
    rates = {record.cell.options["quantization"].get("qat_rate") for record in records} - {None}
    return ["quantization.qat_rate"] if len(rates) == 1 else []


def _same_file(common: Distinctions, record: Record, records: Sequence[Record]) -> str:
    """Return a note with the recipes that have the same ONNX file, e.g. if there are fewer texts than samples."""
    digest = record.artifacts.digests().get("onnx")
    alike = [r for r in records if r is not record and digest and r.artifacts.digests().get("onnx") == digest]
    return f"same ONNX file as: {', '.join(_recipe(common, other) for other in alike)}" if alike else ""


def _task(record: Record) -> str:
    return str(record.cell.lengths["task"])


def _activations(record: Record) -> str:
    own = record.cell.options["quantization"]
    if own.get("scheme") == "dynamic":
        return "dynamic"
    return "unsigned" if own.get("activation", "int8") == "uint8" else "signed"


def _time(record: Record, timed: Mapping[str, Record]) -> tuple[str, Estimate | None, bool]:
    """Return the largest measured shape of the recipe, its time in ns, and whether its outputs are valid there."""
    other = timed.get(way(record))
    if other is None:
        return "", None, False
    shape = max(((m.batch, m.sequence) for m in other.measurements), key=lambda s: s[0] * s[1], default=None)
    if shape is None:
        return "", None, False
    tasks = judged([record]).get(way(record), {})
    return f"{shape[0]}x{shape[1]}", fastest_time(other, [shape], (GPU, LATENCY)), not problems(other, {shape}, tasks)
