"""What strategies and the changes within them are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from backends.base import Shape, Unsupported
from suites.cell import PROFILES
from suites.record import Record
from suites.switching_model import Pair
from suites.tables.options import distinctions
from suites.tables.rows import joined, profiles_of
from suites.traffic import Size

SPOKEN_FOR = (*PROFILES, "cuda_graph", "contexts", "engines", "layout", "pad_to", "pad_to_multiple_of")
"""Options that a strategy's name has words for."""


def strategy(record: Record, cuda_graph: bool) -> str:
    """How requests are served, in words."""
    options: Mapping[str, Any] = record.cell.options
    parts = [record.cell.backend, record.cell.precision]
    parts += [text for text in (profiles_of(record), options.get("layout", "")) if text]
    parts += [f"tokens to a multiple of {options['pad_to_multiple_of']}"] if "pad_to_multiple_of" in options else []
    parts += ["a context a profile"] if options.get("contexts") == "per_profile" else []
    parts += ["an engine a shape"] if options.get("engines") == "per_shape" else []
    parts += [f"padded up to {' '.join(f'{b}x{s}' for b, s in options['pad_to'])}"] if "pad_to" in options else []
    parts += ["CUDA graphs"] if cuda_graph else []
    return ", ".join(parts)


class Names:
    """Names for strategies that stand side by side: what most of a backend and precision share is left out of them."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._told = distinctions(records, SPOKEN_FOR)
        releases = {(record.cell.backend, record.cell.release) for record in records}
        self._several = {backend for backend, count in Counter(backend for backend, _ in releases).items() if count > 1}

    def of(self, record: Record, cuda_graph: bool) -> str:
        release = record.cell.release if record.cell.backend in self._several else ""
        own = joined(release, self._told.of(record))
        return strategy(record, cuda_graph) + (f" ({own})" if own else "")

    def caption(self) -> list[str]:
        """What is left out, as the lines of a paragraph; none if nothing is."""
        return self._told.caption()


def kinds(record: Record, pairs: Sequence[Pair]) -> dict[Pair, str]:
    """ "same shape", "other shape" or "other profile", by pair; without profiles the last does not occur."""
    profile = profiles_by_shape(record, sorted({shape for pair in pairs for shape in pair}))

    def kind(before: Size, after: Size) -> str:
        if before == after:
            return "same shape"
        return "other profile" if profile[before] != profile[after] else "other shape"

    return {pair: kind(*pair) for pair in pairs}


def profiles_by_shape(record: Record, shapes: Sequence[Size]) -> dict[Size, str]:
    """The profile that runs each shape; all the same where there are none."""
    from backends.tensorrt_.profiles import choose, plan_profiles

    if not profiles_of(record):
        return dict.fromkeys(shapes, "")
    try:
        planned = plan_profiles([Shape(*shape) for shape in shapes], record.cell.options)
        return {shape: str(planned[choose(planned, Shape(*shape))]) for shape in shapes}
    except Unsupported:
        return dict.fromkeys(shapes, "")
