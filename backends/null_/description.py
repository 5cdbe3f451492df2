"""The null backend: a test backend that runs no model. null.behaviour selects its outcome."""

from __future__ import annotations

from backends.description import BackendDescription, SourceKind
from backends.null_.null_options import NullOptions

BACKENDS = (
    BackendDescription(
        name="null",
        factory="backends.null_.null:Null",
        source=SourceKind.none,
        devices=("cpu",),
        time_limit_s=300.0,
        options=NullOptions,
        limits_builds=True,
        groups={"null": NullOptions},
    ),
)
