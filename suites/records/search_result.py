"""Result of a precision search (`python -m suites.search`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from backends.json_part import Part
from suites.suite import Result


@dataclass(frozen=True)
class SearchStep(Part):
    """One set of parts that a precision search tried.

    Attributes:
        kept: names of the parts in higher precision ("held" in JSON).
        passes: whether the rest is accurate enough ("content" in JSON).
        accuracy, latency: ids of the cells that were run.
    """

    json_names: ClassVar[Mapping[str, str]] = {"kept": "held", "passes": "content"}

    kept: tuple[str, ...]
    passes: bool
    accuracy: str
    latency: str


@dataclass(frozen=True)
class SearchResult(Result):
    """Result of a search.

    Attributes:
        kept: names of the parts in higher precision ("held" in JSON); None if no set of parts passes.
        parts: names of all parts of the model.
        steps: the sets that were tried, in order.
        tolerance, cosine: limits that a set must keep.
        ended: whether the search ended at its limit of steps or of time.
    """

    json_names: ClassVar[Mapping[str, str]] = {"kept": "held"}

    kept: tuple[str, ...] | None
    parts: tuple[str, ...]
    steps: tuple[SearchStep, ...]
    tolerance: float
    cosine: float
    ended: bool = False
