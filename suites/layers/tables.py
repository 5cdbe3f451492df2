"""Records of suite=layers to markdown: the error of each marked output, and the first one above the threshold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from suites.layers.result import Layer, LayersResult
from suites.records.record import OK, Record
from suites.tables.distinctions import distinctions
from suites.tables.markdown import by_machine, joined, markdown, one_machine, profiles_of
from suites.tables.models import model_names, origin_note
from suites.tables.table import Table

COLUMNS = ("layer", "output", "NaN or Inf", "max difference", "relative error", "cosine min", "notes")

LEGEND = """\
Marked outputs along the model, compared with FP32 over the tokens of one batch without padding. A marked output is an
output of the graph, so layers are not fused across it.

- **layer, output**: position in the model.
- **NaN or Inf**: number of values that are not finite.
- **max difference**: largest absolute difference.
- **relative error**: Frobenius norm of the difference, divided by that of the FP32 output.
- **cosine min**: smallest cosine of a token.
- **first above the threshold**: first output whose relative error is above the threshold below the table."""


def layers_tables(records: Iterable[Record]) -> str:
    """Return one section for each machine, with one table for each record."""
    return by_machine("Layers", LEGEND, records, _section)


def _section(records: Sequence[Record]) -> str:
    common = distinctions(records)
    names = model_names(records)
    lines = ["", one_machine(records), *common.caption()]
    for record in sorted(records, key=lambda r: r.cell.id):
        cell = record.cell
        shape = "x".join(str(size) for size in cell.shapes[-1])
        model = joined(names(record), _depth(record), cell.weights, origin_note(record))
        named = joined(model, cell.backend, cell.release, cell.precision, profiles_of(record), shape)
        lines += ["", f"### {joined(named, common.of(record))}", ""]
        lines += [_table(record)] if record.outcome == OK else [f"{record.outcome}: {record.reason}"]
    return "\n".join(lines)


def _depth(record: Record) -> str:
    """Return the number of layers of the model; models of one name may differ in it."""
    layers = {layer.point.rpartition("/")[0] for layer in _layers(record)} - {""}
    return f"{len(layers)} layers" if layers else ""


def _table(record: Record) -> str:
    result = record.result
    assert isinstance(result, LayersResult)
    rows, first = [_row(layer, result.first) for layer in result.layers], result.first or "none"
    return f"{markdown(COLUMNS, rows)}\n\nFirst output with a relative error above {result.threshold:g}: {first}."


def _layers(record: Record) -> Sequence[Layer]:
    return record.result.layers if isinstance(record.result, LayersResult) else ()


def _row(layer: Layer, first: str) -> list[str]:
    place, _, output = layer.point.rpartition("/")
    mark, errors = "**first above the threshold**" if layer.point == first else "", layer.errors
    if errors is None:
        return [place, output, str(layer.nonfinite), "", "", "", mark]
    figures = [f"{errors.max_difference:.2e}", f"{errors.relative_error:.2e}", f"{errors.cosine_min:.5f}"]
    return [place, output, "", *figures, mark]


TABLES = {"layers": Table("suites.layers.tables:layers_tables")}
