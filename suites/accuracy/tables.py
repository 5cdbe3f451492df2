"""Accuracy records to markdown: the score of each row on a task, and its difference from FP32."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from suites.records.record import OK, Record
from suites.statistics.validity import past_tolerance, scores_of
from suites.tables.distinctions import Distinctions, distinctions, sources_of
from suites.tables.markdown import (
    NOTES_LEGEND,
    ROW_LEGEND,
    by_machine,
    configuration,
    fitted,
    nodes_elsewhere,
    notes_cell,
    one_machine,
    products_not_int8,
)
from suites.tables.models import model_names, origin_note, pooling_note, task_names
from suites.tables.table import Table
from suites.tasks.task_scores import MetricFigures, TaskFigures

COLUMNS = (
    "backend", "precision", "metric", "difference [95% CI]", "verdict", "value", "FP32 value", "other metrics",
    "changed", "cosine min", "cosine mean", "max difference", "relative error", "NaN or Inf", "version", "notes",
)  # fmt: skip

KEYS = COLUMNS.index("difference [95% CI]") + 1

LEGEND = f"""\
- **metric, value**: metric of the task, computed from the row's own outputs.
- **FP32 value**: the same metric for PyTorch in FP32 on the same texts.
- **difference**: value minus FP32 value, with a 95% interval by paired bootstrap.
- **other metrics**: more metrics of the task, each with its value, its difference and the interval. They never make a
  row invalid.
- **verdict**: the conclusion that the interval supports. For the project's own sentences (rank agreement) there is no
  interval and no verdict: they show drift only, and never make a row invalid.
- **changed**: share of predictions that differ from those of FP32.
- **cosine min, cosine mean, max difference, relative error**: outputs compared with FP32. The outputs are those that
  the task reads: pooled embeddings (a note names the pooling), the first token for a classifier, or the scores of start
  and end for a span.
- **NaN or Inf**: number of outputs that are not finite.
- **version**: library and version of the backend.
- **texts**: every text ran in a batch with texts of other lengths, in the shapes of the cell.
{ROW_LEGEND}
{NOTES_LEGEND}
- **invalid**: the row loses more than the tolerance of the task, or has no finite figure."""


def accuracy_tables(records: Iterable[Record]) -> str:
    """Return one section for each machine, with one table for each model and task."""
    return by_machine("Accuracy", LEGEND, records, accuracy_section)


def accuracy_section(records: Sequence[Record]) -> str:
    """Return the section of one machine.

    Raises:
        Incomparable: the records come from several machines.
    """
    lines = ["", one_machine(records)]
    models, tasks = model_names(records), task_names(records)

    def question_of(record: Record) -> tuple[str, str, str]:
        return models(record), record.cell.weights, tasks(record)

    for (model, weights, task), members in groupby(sorted(records, key=question_of), key=question_of):
        group = list(members)
        common = distinctions(group, sources=sources_of(records))
        ordered = sorted(group, key=lambda record: (record.cell.backend, record.cell.precision, record.cell.id))
        table = fitted(COLUMNS, [_row(record, common) for record in ordered], KEYS)
        lines += ["", f"### {model}, {weights} weights, {task}", *common.caption(), "", table]
    return "\n".join(lines)


def _row(record: Record, common: Distinctions) -> list[str]:
    cell, scores = record.cell, scores_of(record)
    wrong = past_tolerance(scores) if scores else ""
    notes = notes_cell(
        configuration(record, common.of(record)),
        origin_note(record),
        products_not_int8(record),
        nodes_elsewhere(record),
        pooling_note(record),
        _truncated(record),
        "" if record.outcome == OK else f"{record.outcome}: {record.reason}",
        f"**invalid**: {wrong}" if wrong else "",
    )
    figures = {} if scores is None else {"NaN or Inf": str(scores.nonfinite), **_figures(scores.figures)}
    cells = {"backend": cell.backend, "precision": cell.precision, **figures, "version": cell.release, "notes": notes}
    return [cells.get(name, "") for name in COLUMNS]


def _figures(figures: TaskFigures | None) -> dict[str, str]:
    if figures is None:
        return {}
    return {
        "metric": _metric(figures),
        "value": f"{figures.value:.6f}",
        "difference [95% CI]": f"{figures.difference:+.5f}{_interval(figures)}",
        "verdict": figures.verdict,
        "FP32 value": f"{figures.reference_value:.6f}",
        "other metrics": "; ".join(map(_other, figures.others)),
        "changed": "" if figures.changed is None else f"{figures.changed:.2%}",
        "cosine min": f"{figures.cosine_min:.5f}",
        "cosine mean": f"{figures.cosine_mean:.5f}",
        "max difference": f"{figures.max_difference:.2e}",
        "relative error": f"{figures.relative_error:.2e}",
    }


def _other(figures: MetricFigures) -> str:
    interval = f"[{figures.low:+.5f}, {figures.high:+.5f}]"
    return f"{figures.metric} {figures.value:.6f}, {figures.difference:+.5f} {interval}"


def _interval(figures: TaskFigures) -> str:
    """Return the interval; empty for rank agreement, whose pairs share texts. Old records have one there too."""
    return " [{:+.5f}, {:+.5f}]".format(*figures.interval) if figures.interval else ""


def _metric(figures: TaskFigures) -> str:
    exact = "" if figures.exact_match is None else f" (exact match {figures.exact_match:.4f})"
    return f"{figures.metric}{exact}"


def _truncated(record: Record) -> str:
    notes = record.artifacts.input_notes
    return f"{notes.cut} of {notes.texts} texts truncated" if notes.cut else ""


TABLES = {
    "accuracy": Table("suites.accuracy.tables:accuracy_tables"),
    "recipes": Table("suites.accuracy.recipe_tables:recipe_tables", ("records", "latency")),
}

END_TABLES = "suites.accuracy.task_end_tables:accuracy_end_tables"
"""Function that makes the short tables at the end of a run."""
