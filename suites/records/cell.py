"""A cell: one combination of suite, model, backend, precision and shapes. Its id is the hash of its canonical JSON.

A cell contains no path, no interpreter and no machine. The same cell has the same id on every machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

from backends.json_codec import to_object
from backends.json_part import Part
from backends.model_output import HIDDEN

PROFILES = ("profiles", "min", "opt", "max", "ranges")
"""Options that select the shapes for which an engine is tuned."""


def short_digest(value: object) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a JSON value. They replace a long value in a cell."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class CellFields(TypedDict):
    """Fields of a `Cell` that are known before the probe: all but `release`."""

    suite: str
    model: str
    weights: str
    model_version: str
    backend: str
    precision: str
    device: str
    shapes: tuple[tuple[int, int], ...]
    lengths: Mapping[str, object]
    options: Mapping[str, object]


@dataclass(frozen=True)
class Cell(Part):
    """One (suite, model, backend, precision, shapes) combination.

    Attributes:
        weights: "trained", or "random" with its seed.
        model_version: Identity of the checkpoint (backends/model/identity.py), or digest of the architecture of random
            weights. A changed model with the same name is another cell.
        release: Library and version of the backend. Two releases are two cells.
        shapes: (batch, sequence) pairs.
        lengths: Distribution of sequence lengths, kind of tokens, digest of the texts for inputs and calibration, and
            the name of their file if it was set. For the accuracy suite also digests of the task's texts and of its
            labels or scores.
        options: Other options that change the computation: CUDA graphs, threads, options of the backend, quantization.
    """

    suite: str
    model: str
    weights: str
    model_version: str
    backend: str
    release: str
    precision: str
    device: str
    shapes: tuple[tuple[int, int], ...]
    lengths: Mapping[str, Any]
    options: Mapping[str, Any]

    def to_json(self) -> dict[str, object]:
        return to_object(self)

    @property
    def output(self) -> str:
        """Kind of output, see Output in backends/model_output.py. Cells without one have hidden states."""
        return str(self.options.get("output", HIDDEN))

    @cached_property
    def id(self) -> str:
        """Model, backend and precision, then the first 12 hexadecimal digits of the SHA-256 of the canonical JSON.

        The id is a file name: it has no path separator, does not begin with a dot and is short.
        """
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        front = (re.sub(r"[^A-Za-z0-9._-]+", "-", part)[:60] for part in (self.model, self.backend, self.precision))
        return f"{'-'.join(front).lstrip('.-')}-{digest}"
