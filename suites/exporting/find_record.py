"""Find a record by its file or by the id of its cell, and check that its model can be exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backends.registry import describe, descriptions
from suites.records.record import OK, Record, read_record
from suites.records.results_folder import folders_to_read
from suites.records.value_types import BadRecord
from suites.schema.refusals import Refused, did_you_mean, is_file, shortened

EXPORTED_SUITES = ("latency", "accuracy", "switching")
"""Suites whose records have a model that can be served. Those of suite=layers have other outputs."""


def find_record(given: str, results: Path) -> Record:
    """Return the record of a file (.json), or of a cell id in a results folder.

    Raises:
        Refused: There is no such record, there are several, or the file is not a record.
    """
    path = Path(given)
    if not (given.endswith(".json") or is_file(path)):
        path = _record_of_cell(given, results)
    try:
        return read_record(path)
    except BadRecord as error:
        raise Refused(f"{path} is not a record: {error}") from None
    except OSError as error:
        raise Refused(
            f"{path} cannot be read: {error.strerror}; give the file of a record, or a cell id and --records RESULTS"
        ) from None


def _record_of_cell(cell_id: str, results: Path) -> Path:
    """Return the path of the record with this cell id, or with these last 12 digits of a cell id."""
    paths = [path for folder in folders_to_read(results) for path in sorted((folder.path / "records").glob("*/*.json"))]
    found = [path for path in paths if cell_id in (path.stem, path.stem.rpartition("-")[2])]
    if not found:
        hint = did_you_mean(cell_id, {path.stem for path in paths})
        raise Refused(
            f"{results} has no record of the cell {shortened(cell_id)}; {hint}"
            "give the file of a record, or another folder with --records"
        )
    if len(found) > 1:
        places = ", ".join(map(str, found))
        raise Refused(f"{results} has several records of {shortened(cell_id)}; give one of these files: {places}")
    return found[0]


def check_exportable(record: Record) -> None:
    """Check that a record has a model to serve without the suite.

    Raises:
        Refused: It has none. The message says why.
    """
    check_served(record, EXPORTED_SUITES)
    cell = record.cell
    exporting = [name for name, description in descriptions().items() if description.export]
    if cell.backend not in descriptions() or describe(cell.backend).export is None:
        of_torch = "; PyTorch runs the checkpoint itself: serve its folder with transformers"
        raise Refused(
            f"a model of backend={cell.backend} cannot be exported; backends with an export: {', '.join(exporting)}"
            f"{of_torch if cell.backend.startswith('torch') else ''}"
        )
    check_model(record)


def check_served(record: Record, suites: Sequence[str]) -> None:
    """Check the suite and the outcome of a record.

    Args:
        suites: suites whose records have a model to serve.

    Raises:
        Refused: The suite is another one, or the outcome is not ok.
    """
    if record.cell.suite not in suites:
        raise Refused(
            f"the record is of suite={record.cell.suite}; export a record of suite={', '.join(suites)}, which has a "
            "model to serve"
        )
    if record.outcome != OK:
        raise Refused(
            f"the record has the outcome {record.outcome}: {shortened(record.reason, 300) or 'without a reason'}; "
            "only a record with the outcome ok can be exported"
        )


def check_model(record: Record) -> None:
    """Check that a record has a trained model in one file.

    Raises:
        Refused: It has not.
    """
    cell = record.cell
    if cell.weights != "trained":
        raise Refused(f"the model has {cell.weights} weights, which are for latency only; export a trained model")
    if cell.options.get("engines") == "per_shape":
        raise Refused("trt.engines=per_shape has one plan for each shape; export a record with trt.engines=one")
