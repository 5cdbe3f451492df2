"""Packages that the main interpreter needs to export a model."""

from __future__ import annotations

from backends.base import versions_of
from backends.description import SourceKind

CHECKPOINT = ("torch", "transformers", "safetensors")

PACKAGES = {
    SourceKind.none: (),
    SourceKind.checkpoint: CHECKPOINT,
    SourceKind.onnx: (*CHECKPOINT, "onnx", "onnx-graphsurgeon"),
}
"""Names of distributions by the source that a backend builds from."""


def missing_packages(kind: SourceKind) -> tuple[str, ...]:
    """Return the packages that this interpreter lacks for exports of a kind."""
    installed = versions_of(PACKAGES[kind])
    return tuple(name for name in PACKAGES[kind] if name not in installed)
