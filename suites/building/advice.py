"""The advice of suite=building: which build is worth its time, and whether two builds are the same."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from suites.building.result import (
    BUILT_AGAIN,
    COLD,
    FIRST,
    MEASURED_AGAIN,
    SAVED_TIMINGS,
    Build,
    BuildingResult,
    Engine,
)

NEAR = 1.02
"""A latency of at most this multiple of the best one counts as equal to it."""


@dataclass(frozen=True)
class Choice:
    """All builds without timings that have the same setting.

    Attributes:
        setting: the changed option; empty for the options of the cell.
        seconds, milliseconds: medians over the builds.
    """

    setting: str
    seconds: float
    milliseconds: float

    @property
    def name(self) -> str:
        return self.setting or "the options of the cell"


def choices(result: BuildingResult) -> list[Choice]:
    """Return the settings that were built without timings, in the order of the rounds."""
    engines: dict[str, list[Engine]] = {}
    for build in result.builds:
        if build.kind in COLD and build.engine is not None:
            engines.setdefault(build.setting, []).append(build.engine)
    return [
        Choice(
            setting,
            statistics.median(engine.seconds for engine in group),
            statistics.median(engine.milliseconds for engine in group),
        )
        for setting, group in engines.items()
    ]


def shortest_near_best(result: BuildingResult) -> tuple[Choice, Choice] | None:
    """Return the setting with the shortest build within 2% of the best latency, and the one with the best latency.

    If only one setting was built, there is nothing to choose, and the result is None.
    """
    settings = choices(result)
    if len(settings) < 2:
        return None
    best = min(settings, key=lambda choice: choice.milliseconds)
    near = [choice for choice in settings if choice.milliseconds <= NEAR * best.milliseconds]
    return min(near, key=lambda choice: choice.seconds), best


def spread(engines: Sequence[Engine]) -> float:
    """Return the largest latency divided by the smallest one, minus 1."""
    times = [engine.milliseconds for engine in engines]
    return max(times) / min(times) - 1


def engines_of(result: BuildingResult, *kinds: str) -> list[Engine]:
    return [build.engine for build in result.builds if build.kind in kinds and build.engine is not None]


def sentences(result: BuildingResult) -> Iterator[str]:
    """Yield the advice, if several settings were built, and the comparison of builds."""
    if advised := shortest_near_best(result):
        shortest, best = advised
        text = f"The shortest build within 2% of the best latency: {shortest.name}, {shortest.seconds:.1f} s and "
        text += f"{shortest.milliseconds:.4g} ms."
        if best.milliseconds < shortest.milliseconds:
            text += f" The best latency: {best.name}, {best.seconds:.1f} s and {best.milliseconds:.4g} ms."
        yield text
    cold, warm = engines_of(result, FIRST, BUILT_AGAIN), engines_of(result, SAVED_TIMINGS)
    if warm:
        ratio = statistics.median(e.seconds for e in cold) / statistics.median(e.seconds for e in warm)
        yield f"With the saved timings a build is {ratio:.1f} times as fast as without timings."
    again = engines_of(result, FIRST, MEASURED_AGAIN)
    if len(again) > 1:
        yield f"The same engine in {len(again)} processes: latency within {spread(again):.1%}."
    for name, engines in (("without timings", cold), ("with the saved timings", warm)):
        if len(engines) > 1:
            yield f"{len(engines)} builds {name}: {_differences(engines)}."


def _differences(engines: Sequence[Engine]) -> str:
    """Return in which respects the engines of the same settings differ."""
    parts = [f"latency within {spread(engines):.1%}"]
    tactics = [engine.other_tactics or 0 for engine in engines]
    if all(engine.layers for engine in engines):
        different = f"up to {max(tactics)} of {engines[0].layers} layers have other tactics than the first build"
        parts.append(different if any(tactics) else "the tactics of the first build")
    parts.append("the same output bits" if len({e.output for e in engines}) == 1 else "different output bits")
    parts.append("the same file" if len({e.plan for e in engines}) == 1 else "different files")
    return ", ".join(parts)


def failures(result: BuildingResult) -> list[Build]:
    return [build for build in result.builds if build.engine is None]
