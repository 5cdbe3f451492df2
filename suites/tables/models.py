"""Names of models and data sets in headings: two of one name are told apart by the digest that their cells have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from suites.records.record import Record

Name = Callable[[Record], str]


def model_names(records: Iterable[Record]) -> Name:
    """The heading's name of a record's model: with its version where several models of `records` share the name."""
    several = _shared((record.cell.model, record.cell.weights, record.cell.model_version) for record in records)

    def name(record: Record) -> str:
        cell = record.cell
        if (cell.model, cell.weights) not in several:
            return cell.model
        version = cell.model_version
        return f"{cell.model} ({(version if '@' in version else version[:8]) or 'no version'})"

    return name


def task_names(records: Iterable[Record]) -> Name:
    """The heading's name of a record's task: with a digest where several data sets of `records` share the name."""
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


def _shared(keys: Iterable[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
    """The names (all but the last item of each key) that come with several last items."""
    found: dict[tuple[Any, ...], set[Any]] = {}
    for *name, version in keys:
        found.setdefault(tuple(name), set()).add(version)
    return {name for name, versions in found.items() if len(versions) > 1}


def origin_note(record: Record) -> str:
    """Where weights came from, if not from the folder or hub id that was asked for."""
    origin = str(record.artifacts.get("weights", {}).get("origin", ""))
    return f"weights from {origin}" if origin.startswith("package") else ""


def pooling_note(record: Record) -> str:
    """How a sentence encoder's vectors were made, where a record says it."""
    return str(record.artifacts.get("inputs", {}).get("notes", {}).get("pooling", ""))
