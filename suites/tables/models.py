"""Names of models and data sets in headings. A digest distinguishes two of the same name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from backends.model_output import HIDDEN
from suites.records.cell import Cell
from suites.records.record import Record

Name = Callable[[Record], str]


def model_names(records: Iterable[Record]) -> Name:
    """Return a function that names a record's model, with its version if several models of `records` share the name."""
    several = _shared((record.cell.model, record.cell.weights, record.cell.model_version) for record in records)

    def name(record: Record) -> str:
        cell = record.cell
        if (cell.model, cell.weights) not in several:
            return cell.model
        version = cell.model_version
        return f"{cell.model} ({(version if '@' in version else version[:8]) or 'no version'})"

    return name


def output_text(cell: Cell) -> str:
    """Return the output of a cell for a heading, after a comma, with a pooling of its own; empty for hidden states."""
    pooling = f", pooling={'+'.join(cell.options['pooling'])}" if "pooling" in cell.options else ""
    normalize = f", normalize={'on' if cell.options['normalize'] else 'off'}" if "normalize" in cell.options else ""
    return "" if cell.output == HIDDEN else f", output={cell.output}{pooling}{normalize}"


def task_names(records: Iterable[Record]) -> Name:
    """Return a function that names a record's task, with a digest if several data sets of `records` share the name."""
    several = _shared((*_task(record), _data(record)) for record in records)

    def name(record: Record) -> str:
        task = str(record.cell.lengths["task"])
        return f"{task} (data {_data(record)[:8]})" if _task(record) in several else task

    return name


def _task(record: Record) -> tuple[str, str, str]:
    return record.cell.model, record.cell.model_version, str(record.cell.lengths["task"])


def _data(record: Record) -> str:
    lengths = record.cell.lengths
    return str(lengths.get("targets") or lengths.get("evaluated", ""))


def _shared(keys: Iterable[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Return the names (all but the last item of each key) that have several last items."""
    by_name: dict[tuple[str, ...], set[str]] = {}
    for *name, version in keys:
        by_name.setdefault(tuple(name), set()).add(version)
    return {name for name, versions in by_name.items() if len(versions) > 1}


def origin_note(record: Record) -> str:
    """Return a note if the weights came from a package instead of the requested folder or hub id."""
    origin = record.artifacts.origin
    return f"weights from {origin}" if origin.startswith("package") else ""


def pooling_note(record: Record) -> str:
    """Return a note with the pooling of a sentence encoder; empty if the record has none."""
    return record.artifacts.input_notes.pooling
