"""INT8 recipes side by side: what each is worth on a task and what it takes, of one backend, model and task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from suites.records.cell import PROFILES
from suites.records.record import FAILED, GPU, LATENCY, OK, TIMEOUT, UNSUPPORTED, Record
from suites.statistics.stats import Estimate
from suites.statistics.validity import judged, loss, past_tolerance, problems, way
from suites.statistics.winners import over, quickest
from suites.tables.distinctions import Distinctions, distinctions, sources_of
from suites.tables.markdown import by_machine, joined, markdown, one_machine, products_not_int8, profiles_of
from suites.tables.models import model_names, origin_note, task_names

COLUMNS = (
    "form", "recipe", "profiles", "metric", "value", "drop [95% CI]", "verdict", "cosine min", "p50 ms", "at",
    "over the fastest", "notes",
)  # fmt: skip

LEGEND = """\
One row is one way of making INT8 of a model. *form*: signed and symmetric activations, which TensorRT reads, or
unsigned ones with a zero point, which x86 CPUs multiply. *drop*: the task's figure less FP32's, with its 95% interval
by paired bootstrap. *p50*: of a forward pass of what was judged, plain or as a graph, whichever is faster, at the
largest shape; *over the fastest*: than that of the fastest valid row of its table, a tie where the spread between
processes explains the difference. Rows are sorted by their figure,
which orders them and does not tell them apart: where the intervals of two meet, chance may have ordered them."""


SAYING = (FAILED, TIMEOUT, UNSUPPORTED)
"""Outcomes of recipes that say something of them though they give no figure."""


def recipe_tables(accuracy: Iterable[Record], latency: Iterable[Record]) -> str:
    """All INT8 records that have a recipe, of tasks with a figure: one section a machine, one table a model, task and
    backend in it; empty if there are none."""
    # A backend that has no INT8 ends as unsupported, and its cell has no recipe.
    tried = [r for r in accuracy if r.cell.precision == "int8" and "quantization" in r.cell.options]
    tasks = {_task(r) for r in tried if "low" in r.scores}
    judging = [r for r in tried if _task(r) in tasks and (r.scores or r.outcome in SAYING)]
    timed: dict[str, Record] = {}
    for record in latency:
        if record.cell.precision == "int8" and record.outcome == OK and "passes" not in record.cell.lengths:
            known = timed.setdefault(way(record), record)
            timed[way(record)] = max(known, record, key=lambda one: (max(one.cell.shapes), one.cell.id))
    return by_machine("INT8 recipes", LEGEND, judging, lambda group: _section(group, timed)) if judging else ""


def _section(records: Sequence[Record], timed: Mapping[str, Record]) -> str:
    lines = ["", one_machine(records)]
    models, tasks = model_names(records), task_names(records)

    def question_of(record: Record) -> tuple[str, ...]:
        cell = record.cell
        return models(record), f"{cell.weights} weights", tasks(record), f"{cell.backend} {cell.release}"

    for question, members in groupby(sorted(records, key=question_of), key=question_of):
        lines += ["", f"### {', '.join(question)}", *_table(list(members), timed)]
    return "\n".join(lines)


def _table(records: Sequence[Record], timed: Mapping[str, Record]) -> list[str]:
    told = distinctions(records, (*PROFILES, "quantization.activation", *_one_rate(records)), sources_of(records))
    times = {record.cell.id: _time(record, timed) for record in records}
    fastest: dict[str, Estimate] = {}
    for shape, time, valid in times.values():
        if valid and time is not None:
            fastest[shape] = min(time, fastest.get(shape, time), key=lambda one: one.p50)
    rows = []
    for record in sorted(records, key=lambda one: (loss(one.scores) if one.scores else math.inf, one.cell.id)):
        scores, (shape, time, _) = record.scores, times[record.cell.id]
        wrong = past_tolerance(scores) if scores else ""
        notes = joined(origin_note(record), products_not_int8(record), _same(told, record, records),
                       "" if scores else f"{record.outcome}: {record.reason}",
                       f"**invalid**: {wrong}" if wrong else "")  # fmt: skip
        head = [_form(record), _recipe(told, record), profiles_of(record)]
        if "low" not in scores:
            rows.append([*head, *[""] * (len(COLUMNS) - len(head) - 1), notes])
            continue
        rows.append([
            *head, scores["metric"], f"{scores['value']:.6f}",
            f"{scores['difference']:+.5f} [{scores['low']:+.5f}, {scores['high']:+.5f}]",
            scores["verdict"], f"{scores['cosine_min']:.5f}", f"{time.p50 / 1e6:.3f}" if time else "", shape,
            over(time, fastest[shape]) if time and shape in fastest else "",
            notes,
        ])  # fmt: skip
    return [*told.caption(), "", markdown(COLUMNS, rows)]


def _recipe(told: Distinctions, record: Record) -> str:
    """Options without the name of their group, and without what a recipe never has that is implicit or not trained.
    Where no row differs, what the places and the method are."""
    implicit = record.cell.options["quantization"].get("scheme") == "implicit"
    named = [option.removeprefix("quantization.") for option in told.of(record).split("; ")]
    said = "; ".join(o for o in named if o != "qat_rate unset" and not (implicit and o.endswith(" unset")))
    if said or told.caption():
        return said or "as above"
    own = record.cell.options["quantization"]
    return "; ".join(
        f"{name}={own[name]}" for name in ("scheme", "placement", "method") if own.get(name, "auto") != "auto"
    )


def _one_rate(records: Sequence[Record]) -> list[str]:
    """The option that says how fast a model was trained, where all that were have the same."""
    rates = {record.cell.options["quantization"].get("qat_rate") for record in records} - {None}
    return ["quantization.qat_rate"] if len(rates) == 1 else []


def _same(told: Distinctions, record: Record, records: Sequence[Record]) -> str:
    """Recipes that came to the same file: more samples than there are texts, for one."""
    digest = record.artifacts.get("onnx", {}).get("sha256")
    alike = [r for r in records if r is not record and digest and r.artifacts.get("onnx", {}).get("sha256") == digest]
    return f"the same file: {', '.join(_recipe(told, one) for one in alike)}" if alike else ""


def _task(record: Record) -> str:
    return str(record.cell.lengths["task"])


def _form(record: Record) -> str:
    activation = record.cell.options["quantization"].get("activation", "int8")
    return "unsigned" if activation == "uint8" else "signed"


def _time(record: Record, timed: Mapping[str, Record]) -> tuple[str, Estimate | None, bool]:
    """The largest shape at which what was judged was timed, its time in ns, and whether that speed counts."""
    other = timed.get(way(record))
    if other is None:
        return "", None, False
    shape = max(((m.batch, m.sequence) for m in other.measurements), key=lambda s: s[0] * s[1], default=None)
    if shape is None:
        return "", None, False
    tasks = judged([record]).get(way(record), {})
    return f"{shape[0]}x{shape[1]}", quickest(other, [shape], (GPU, LATENCY)), not problems(other, {shape}, tasks)
