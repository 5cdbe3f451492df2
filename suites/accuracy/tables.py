"""Accuracy records to markdown: what each path is worth on a task, beside FP32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from suites.records.record import OK, Record
from suites.statistics.validity import past_tolerance
from suites.tables.distinctions import Distinctions, distinctions, sources_of
from suites.tables.markdown import by_machine, joined, markdown, one_machine, products_not_int8, profiles_of
from suites.tables.models import model_names, origin_note, pooling_note, task_names

COLUMNS = (
    "backend", "precision", "profiles", "metric", "value", "FP32", "difference [95% CI]", "verdict", "changed",
    "cosine min", "cosine mean", "max difference", "relative error", "NaN or Inf", "notes",
)  # fmt: skip

LEGEND = """\
*value*: the metric of the path's own outputs; *FP32*: of PyTorch's in FP32 on the same texts. *difference*: with its
95% interval by paired bootstrap; *verdict*: what the interval allows to say. The project's own sentences (rank
agreement) tell how far a path drifts and no more: no interval, and no ground to call a row invalid. *changed*: share
of predictions that are not FP32's. Cosine, difference and relative error are those of what the task reads: pooled
embeddings (the notes say which pooling), the first token of a classifier's, the scores of a span's ends. Every text ran
in a batch of other texts of other lengths, in the shapes of the cell."""


def accuracy_tables(records: Iterable[Record]) -> str:
    """All records in markdown: one section a machine, one table a model and task in it."""
    return by_machine("Accuracy", LEGEND, records, accuracy_section)


def accuracy_section(records: Sequence[Record]) -> str:
    """The records of one machine; raises Incomparable if they are not."""
    lines = ["", one_machine(records)]
    models, tasks = model_names(records), task_names(records)

    def question_of(record: Record) -> tuple[str, str, str]:
        return models(record), record.cell.weights, tasks(record)

    for (model, weights, task), members in groupby(sorted(records, key=question_of), key=question_of):
        group = list(members)
        told = distinctions(group, sources=sources_of(records))
        rows = sorted(((r.cell.backend, r.cell.precision, r.cell.id), _row(r, told)) for r in group)
        title, table = f"### {model}, {weights} weights, {task}", markdown(COLUMNS, [row for _, row in rows])
        lines += ["", title, *told.caption(), "", table]
    return "\n".join(lines)


def _row(record: Record, told: Distinctions) -> list[str]:
    cell, scores = record.cell, record.scores
    reason = "" if record.outcome == OK else f"{record.outcome}: {record.reason}"
    wrong = past_tolerance(scores) if scores else ""
    invalid = f"**invalid**: {wrong}" if wrong else ""
    notes = joined(
        told.of(record),
        cell.release,
        origin_note(record),
        products_not_int8(record),
        pooling_note(record),
        _cut(record),
        reason,
        invalid,
    )
    head = [cell.backend, cell.precision, profiles_of(record)]
    if "value" not in scores:
        return [*head, *[""] * (len(COLUMNS) - len(head) - 2), str(scores.get("nonfinite", "")), notes]
    changed = f"{scores['changed']:.2%}" if "changed" in scores else ""
    return [
        *head, _metric(scores), f"{scores['value']:.6f}", f"{scores['reference_value']:.6f}",
        f"{scores['difference']:+.5f}{_interval(scores)}", scores.get("verdict", ""), changed,
        f"{scores['cosine_min']:.5f}", f"{scores['cosine_mean']:.5f}", f"{scores['max_difference']:.2e}",
        f"{scores['relative_error']:.2e}", str(scores.get("nonfinite", "")), notes,
    ]  # fmt: skip


def _interval(scores: Mapping[str, Any]) -> str:
    """None of fidelity: its pairs share texts. Records of before had one, and a verdict from it."""
    return f" [{scores['low']:+.5f}, {scores['high']:+.5f}]" if "low" in scores else ""


def _metric(scores: Mapping[str, Any]) -> str:
    exact = f" (exact match {scores['exact_match']:.4f})" if "exact_match" in scores else ""
    return f"{scores['metric']}{exact}"


def _cut(record: Record) -> str:
    notes = record.artifacts.get("inputs", {}).get("notes", {})
    return f"{notes['cut']} of {notes['texts']} texts cut" if notes.get("cut") else ""
