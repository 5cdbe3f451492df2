"""Facts about a model that a server runs with a session of its backend: the file served.json of a model repository.

Needs CPython 3.10 and numpy only, because the Python of the server reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backends.base import Artifact, BuildSpec
from backends.json_codec import FieldTypes, from_json, to_object
from backends.registry import describe

FILE = "served.json"

CODE = "code"
"""Folder with the package `backends`: a subfolder for each root of the package, because other projects can add some."""


@dataclass(frozen=True)
class ServedFacts:
    """A model and its preprocessing.

    Attributes:
        artifact: the built model. A relative path is below the folder of served.json.
        names: inputs of the model.
        pad: id of padding.
        pads_to_built: whether a batch is padded to a built shape instead of to its longest row.
        tokenizes: whether the folder has a tokenizer, so that requests can be texts.
        truncated_to: number of tokens to which texts are truncated; 0 for no truncation. Token ids never are.
        lower_case: whether texts are converted to lower case before tokenization.
        uncounted: id of a token that requests must not have, see backends/model/families.py; -1 if there is none.
        labels: names of the labels of a classifier of whole texts, by place; empty for other models.
    """

    backend: str
    spec: BuildSpec
    artifact: Artifact
    names: tuple[str, ...]
    pad: int = 0
    pads_to_built: bool = False
    tokenizes: bool = False
    truncated_to: int = 0
    lower_case: bool = False
    uncounted: int = -1
    labels: tuple[str, ...] = ()

    @classmethod
    def json_types(cls, data: Mapping[str, object]) -> Mapping[str, object]:
        return {"spec": FieldTypes(BuildSpec, {"options": describe(str(data["backend"])).options})}

    @property
    def longest(self) -> int:
        """Most tokens of a request."""
        return max(shape.sequence for shape in self.spec.shapes)

    @property
    def largest(self) -> int:
        """Most rows of a batch."""
        return max(shape.batch for shape in self.spec.shapes)

    def write(self, folder: Path) -> None:
        """Write served.json to a folder."""
        (folder / FILE).write_text(json.dumps(to_object(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> ServedFacts:
        """Return the facts in served.json of a folder."""
        return from_json(cls, json.loads((folder / FILE).read_text(encoding="utf-8")), FILE)
