"""Commands of a vendor's own tools that are equivalent to a cell, and the facts they are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RecordedCell:
    """Facts of a cell in a record.

    Attributes:
        release: library and version of the backend, such as "tensorrt 8.6.0".
        shapes: (batch, sequence) pairs.
        options: options of the cell, in JSON types.
    """

    release: str
    precision: str
    shapes: Sequence[tuple[int, int]]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class ToolCommand:
    """A command line with a sentence about its purpose."""

    purpose: str
    words: Sequence[str]


@dataclass(frozen=True)
class ToolCommands:
    """Equivalent commands.

    Attributes:
        commands: in the order in which they run.
        notes: facts to know, and parts of the cell that the commands cannot express; one sentence each.
    """

    commands: Sequence[ToolCommand]
    notes: Sequence[str]
