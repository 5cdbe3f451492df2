"""Names of strategies, and kinds of changes of shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from backends.base import Shape, Unsupported
from backends.json_codec import from_json
from backends.profiles import RecordedProfiles, choose_profile, plan_profiles
from suites.records.cell import PROFILES
from suites.records.record import Record
from suites.switching.costs import Pair
from suites.switching.result import Size
from suites.tables.distinctions import distinctions
from suites.tables.markdown import joined, profiles_of

NAMED_OPTIONS = (*PROFILES, "cuda_graph", "contexts", "engines", "layout", "pad_to", "pad_to_multiple_of")
"""Options that `strategy` puts into the name of a strategy itself."""


def strategy_name(record: Record, cuda_graph: bool) -> str:
    """Return the name of a strategy: backend, precision, and how requests are served."""
    options = record.cell.options
    parts = [record.cell.backend, record.cell.precision]
    parts += [text for text in (profiles_of(record), options.get("layout", "")) if text]
    multiple = options.get("pad_to_multiple_of")
    parts += [f"tokens padded to a multiple of {multiple}"] if "pad_to_multiple_of" in options else []
    parts += ["one context per profile"] if options.get("contexts") == "per_profile" else []
    parts += ["one engine per shape"] if options.get("engines") == "per_shape" else []
    parts += [f"padded up to {' '.join(f'{b}x{s}' for b, s in options['pad_to'])}"] if "pad_to" in options else []
    parts += ["CUDA graphs"] if cuda_graph else []
    return ", ".join(parts)


class StrategyNames:
    """Names for strategies that are compared with each other.

    Options that most records of a backend and precision share are not part of the names; `caption` lists them.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._distinctions = distinctions(records, NAMED_OPTIONS)
        releases = {(record.cell.backend, record.cell.release) for record in records}
        counts = Counter(backend for backend, _ in releases)
        self._with_releases = {backend for backend, count in counts.items() if count > 1}

    def of(self, record: Record, cuda_graph: bool) -> str:
        release = record.cell.release if record.cell.backend in self._with_releases else ""
        differences = joined(release, self._distinctions.of(record))
        return strategy_name(record, cuda_graph) + (f" ({differences})" if differences else "")

    def caption(self) -> list[str]:
        """Return the shared options as lines of a paragraph; empty if there are none."""
        return self._distinctions.caption()


def change_kinds(record: Record, pairs: Sequence[Pair]) -> dict[Pair, str]:
    """Return "same shape", "other shape" or "other profile" for each pair; the last occurs only with profiles."""
    profile = profiles_by_shape(record, sorted({shape for pair in pairs for shape in pair}))

    def kind(before: Size, after: Size) -> str:
        if before == after:
            return "same shape"
        return "other profile" if profile[before] != profile[after] else "other shape"

    return {pair: kind(*pair) for pair in pairs}


def profiles_by_shape(record: Record, shapes: Sequence[Size]) -> dict[Size, str]:
    """Return the profile that runs each shape; an empty text for every shape if there are no profiles."""
    if not profiles_of(record):
        return dict.fromkeys(shapes, "")
    options = {name: value for name, value in record.cell.options.items() if name in PROFILES}
    try:
        planned = plan_profiles([*map(Shape.parse, shapes)], from_json(RecordedProfiles, options))
        return {shape: str(planned[choose_profile(planned, Shape.parse(shape))]) for shape in shapes}
    except Unsupported:
        return dict.fromkeys(shapes, "")
