"""Result of suite=latency: its figures are measurements, so the result itself has no fields."""

from __future__ import annotations

from dataclasses import dataclass

from suites.suite import Result


@dataclass(frozen=True)
class LatencyResult(Result):
    """Result without fields."""


RESULT = LatencyResult
