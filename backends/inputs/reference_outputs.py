"""FP32 reference outputs of batches, each of which is cached, so that lists of shapes share those of their shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array, Feeds, versions_of

if TYPE_CHECKING:
    from backends.inputs.batches import InputSource

PACKAGES = ("torch", "transformers", "tokenizers", "numpy")
"""Packages whose versions affect inputs and reference outputs."""


@dataclass(frozen=True)
class ReferenceOutputs:
    """Outputs of the model of `origin`. It is loaded, which takes seconds, for the first batch without a cached one."""

    origin: InputSource

    def of(self, feeds: Feeds) -> Array:
        """Return the FP32 output of a batch of int32 inputs [rows, sequence]."""
        sha = hashlib.sha256()
        for name in sorted(feeds):
            sha.update(f"{name} {feeds[name].dtype} {feeds[name].shape} ".encode())
            sha.update(feeds[name].tobytes())
        key = {
            "checkpoint": self.origin.identity,
            "device": self.origin.device,
            "inputs": sha.hexdigest(),
            **self.origin.output.for_cell(),
        }

        def build(path: Path) -> None:
            np.save(path, self._run(feeds))

        cached = self.origin.cache.get("reference", key, "reference.npy", build, versions_of(PACKAGES))
        return np.asarray(np.load(cached.path, allow_pickle=False))

    @cached_property
    def _run(self) -> Callable[[Feeds], Array]:
        return self.origin.reference()
