"""Records of suite=layers to markdown: how far each marked output is from FP32's, and where it gets too far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from suites.records.record import OK, Record
from suites.tables.distinctions import distinctions
from suites.tables.markdown import by_machine, joined, markdown, one_machine, profiles_of
from suites.tables.models import model_names, origin_note

COLUMNS = ("layer", "output", "NaN or Inf", "max difference", "relative error", "cosine min", "")

LEGEND = """\
Outputs along the model against FP32's, over the tokens of one batch that are not padding; the relative error is that
of the Frobenius norms, the cosine the smallest of a token. Marked outputs are outputs of the graph: what would be fused
across one is not fused there."""


def layers_tables(records: Iterable[Record]) -> str:
    """All records in markdown: one section a machine, one table a record."""
    return by_machine("Layers", LEGEND, records, _section)


def _section(records: Sequence[Record]) -> str:
    told = distinctions(records)
    names = model_names(records)
    lines = ["", one_machine(records), *told.caption()]
    for record in sorted(records, key=lambda r: r.cell.id):
        cell = record.cell
        shape = "x".join(str(size) for size in cell.shapes[-1])
        model = joined(names(record), _depth(record), cell.weights, origin_note(record))
        named = joined(model, cell.backend, cell.release, cell.precision, profiles_of(record), shape)
        lines += ["", f"### {joined(named, told.of(record))}", ""]
        lines += [_table(record)] if record.outcome == OK else [f"{record.outcome}: {record.reason}"]
    return "\n".join(lines)


def _depth(record: Record) -> str:
    """How many layers the model has, which may be fewer than others of its name."""
    layers = {layer["point"].rpartition("/")[0] for layer in record.scores.get("layers", ())} - {""}
    return f"{len(layers)} layers" if layers else ""


def _table(record: Record) -> str:
    scores = record.scores
    rows = [_row(layer, scores) for layer in scores["layers"]]
    first = scores["first"] or "none"
    return f"{markdown(COLUMNS, rows)}\n\nFirst past a relative error of {scores['threshold']:g}: {first}."


def _row(layer: Mapping[str, Any], scores: Mapping[str, Any]) -> list[str]:
    place, _, output = layer["point"].rpartition("/")
    mark = "**first past the threshold**" if layer["point"] == scores["first"] else ""
    if layer["nonfinite"]:
        return [place, output, str(layer["nonfinite"]), "", "", "", mark]
    figures = [f"{layer['max_difference']:.2e}", f"{layer['relative_error']:.2e}", f"{layer['cosine_min']:.5f}"]
    return [place, output, "", *figures, mark]
