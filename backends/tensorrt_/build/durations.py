"""Seconds that earlier builds took, next to the timing cache, to estimate the seconds of a build."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backends.atomic_file import write_atomically
from backends.cache_files import locked
from backends.json_codec import from_json


@dataclass(frozen=True)
class BuildKind:
    """Properties of a build that decide its time. `layers` is the number of layers of the network before fusion."""

    precision: str
    layers: int
    profiles: int
    optimization_level: int
    warm: bool

    def key(self, profiles: int) -> str:
        """Return the name of this kind with another number of profiles."""
        timings = "timings" if self.warm else "no timings"
        return (
            f"{self.precision}, {self.layers} layers, {profiles} profiles, level {self.optimization_level}, {timings}"
        )


def durations_path(timing_cache: Path) -> Path:
    """Return the file of the seconds, next to the file of a timing cache."""
    return timing_cache.with_suffix(".seconds.json")


def estimated_seconds(path: Path, kind: BuildKind) -> float | None:
    """Return the seconds of the last build of this kind, or of another number of profiles in proportion.

    Args:
        path: file of `note_seconds`. Without it, or if it cannot be read, there is no estimate.
    """
    seconds = _read(path)
    for profiles in sorted(range(1, 65), key=lambda count: abs(count - kind.profiles)):
        if (known := seconds.get(kind.key(profiles))) is not None:
            return known * kind.profiles / profiles
    return None


def note_seconds(path: Path, kind: BuildKind, seconds: float) -> None:
    """Note the seconds of a build that ended well."""
    with locked(path.with_suffix(".lock")):
        write_atomically(path, json.dumps({**_read(path), kind.key(kind.profiles): round(seconds, 1)}, indent=1))


def _read(path: Path) -> Mapping[str, float]:
    try:
        return from_json(Mapping[str, float], json.loads(path.read_text(encoding="utf-8")), "durations")
    except (OSError, ValueError, TypeError):
        return {}
