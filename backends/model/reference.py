"""The description of a model's checkpoint that jobs carry. Needs the standard library alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelReference:
    """Where a checkpoint comes from: random weights, a folder, or a hub id.

    Attributes:
        weights: "trained" or "random".
        path: folder of the checkpoint; empty until it is known.
        hub, revision: hub id, and its branch, tag or commit.
        package, package_of, package_sha256: a package with the weights of the hub id `package_of`, and the first digits
            of their digest.
        tokenizer: folder whose tokenizer random weights use; empty for none.
        architecture: fields of the config.json of random weights.
        seed: seed of random weights.
        identity: digest of the files of `path` (backends/model/identity.py); empty until it is known.
        origin: "path", or the hub id or package that `path` comes from.
        padded: sizes in config.json that are padded with zeros (backends/model/padded_weights.py), with their values.
    """

    weights: str
    path: str = ""
    hub: str = ""
    revision: str = "main"
    package: str = ""
    package_of: str = ""
    package_sha256: str = ""
    tokenizer: str = ""
    architecture: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    identity: str = ""
    origin: str = ""
    padded: Mapping[str, int] = field(default_factory=dict)
