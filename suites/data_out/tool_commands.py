"""Commands of a vendor's own tools for the cell of a record, as text that a shell can run."""

from __future__ import annotations

import importlib
import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path

from backends.registry import describe, descriptions
from backends.vendor_tools import RecordedCell, ToolCommands
from suites.data_out.loaded_records import selected_records
from suites.records.record import Record, read_record
from suites.records.value_types import BadRecord
from suites.schema.refusals import Refused, did_you_mean, is_file, shortened

WIDTH = 120


def tool_commands(given: str, results: Path) -> str:
    """Return the commands for a cell, with comments.

    Args:
        given: file of a record, id of a cell, or the last 12 digits of the id.
        results: folder in which an id is searched.

    Raises:
        Refused: there is no such record, or its backend has no such commands.
    """
    record = find_cell(given, results)
    cell = record.cell
    known = [name for name, description in descriptions().items() if description.tools]
    if cell.backend not in descriptions() or not (tools := describe(cell.backend).tools):
        raise Refused(f"backend={cell.backend} has no equivalent commands; backends with them: {', '.join(known)}")
    module, _, name = tools.partition(":")
    make: Callable[[RecordedCell], ToolCommands] = getattr(importlib.import_module(module), name)
    commands = make(RecordedCell(cell.release, cell.precision, cell.shapes, cell.options))
    lines = [_comment(f"Cell {cell.id}: {cell.model}, {cell.release}, {cell.precision}"), *_source(record), ""]
    for command in commands.commands:
        lines += [_comment(command.purpose), shlex.join(command.words), ""]
    return "\n".join([*lines, *(_comment(note) for note in commands.notes)])


def find_cell(given: str, results: Path) -> Record:
    """Return the record of a file, or of a cell in a results folder. If several machines have it, return the first.

    Raises:
        Refused: there is no such record.
    """
    if is_file(given):
        try:
            return read_record(Path(given))
        except BadRecord as error:
            raise Refused(f"{shortened(given)} is not a record: {error}") from None
    records = selected_records(results)
    for record in records:
        if given in (record.cell.id, record.cell.id.rpartition("-")[2]):
            return record
    hint = did_you_mean(given, {record.cell.id for record in records})
    raise Refused(f"{results} has no cell {shortened(given)}; {hint}give the id of a cell or the file of a record")


def _source(record: Record) -> list[str]:
    """Return comments about the ONNX file of a record."""
    sha256 = record.artifacts.onnx.sha256 if record.artifacts.onnx else ""
    if not sha256:
        return []
    return [
        _comment(
            f"model.onnx: the file cache/*/*/model.onnx with SHA-256 {sha256}. "
            "The command of the cell with until=export writes it to the cache."
        )
    ]


def _comment(text: str) -> str:
    """Return a comment of a shell in lines of at most `WIDTH` characters."""
    return textwrap.fill(
        text, WIDTH, initial_indent="# ", subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False
    )
