"""A cell: what one record answers. Its id is the hash of its canonical JSON.

No path, no interpreter and no machine is in a cell: the same question asked elsewhere has the same id.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

PROFILES = ("profiles", "min", "opt", "max", "ranges")
"""Options that say for which shapes an engine is tuned."""


def short_digest(value: Any) -> str:
    """What stands in a cell for a value that is too long for it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Cell:
    """One (suite, model, backend, precision, shapes) combination.

    Attributes:
        weights: "trained", or "random" with its seed.
        model_version: identity of the checkpoint (backends/identity.py), or digest of the architecture of random
            weights, so that a model that changed under its name is another cell.
        release: the backend's library and version, so that two releases stand side by side.
        shapes: (batch, sequence) pairs.
        lengths: distribution of sequence lengths, kind of tokens, digest of the texts they come from, which calibrate
            too, and the name of their file where one was given; of the accuracy suite also digests of the task's texts
            and of its labels or scores.
        options: what else changes what runs: CUDA graphs, threads, the backend's own options, quantization.
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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        return cls(**{**data, "shapes": tuple((int(b), int(s)) for b, s in data["shapes"])})

    @cached_property
    def id(self) -> str:
        """Readable front, then the first 12 hexadecimal digits of the SHA-256 of the canonical JSON. It is a file name,
        so it has no separator of folders, does not begin with a dot and is not long."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        front = (re.sub(r"[^A-Za-z0-9._-]+", "-", part)[:60] for part in (self.model, self.backend, self.precision))
        return f"{'-'.join(front).lstrip('.-')}-{digest}"
