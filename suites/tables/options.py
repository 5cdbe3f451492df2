"""The options that tell the rows of one table apart: what most rows share is said once, above it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suites.record import Record

PROFILES = ("profiles", "min", "opt", "max", "ranges")
"""Options that the column "profiles" speaks for."""

Way = tuple[str, str]
"""A backend and a precision: options are compared among the rows of one way alone."""


@dataclass(frozen=True)
class Distinctions:
    """By way and option, where its rows differ: the value that most of them have, or None where none is so common."""

    usual: Mapping[Way, Mapping[str, str | None]]

    def of(self, record: Record) -> str:
        """The options in which this record differs from what is usual; an option it lacks is "unset"."""
        options, usual = dict(flat(record.cell.options)), self.usual[_way(record)]
        own = {name: options.get(name, "") for name in (*options, *usual) if name in usual}
        said = {name: value for name, value in own.items() if value != usual[name] and (value or usual[name])}
        return "; ".join(f"{name}={value}" if value else f"{name} unset" for name, value in said.items())

    def caption(self) -> list[str]:
        """What is usual, as the lines of a paragraph; none if nothing is."""
        ways = []
        for way, usual in sorted(self.usual.items()):
            shared = [f"{name}={value}" for name, value in usual.items() if value]
            ways += [f"{' '.join(way)}: {', '.join(shared)}"] if shared else []
        return ["", f"Where a row says nothing else, {'; '.join(ways)}."] if ways else []


def distinctions(records: Sequence[Record], spoken_for: Sequence[str] = PROFILES) -> Distinctions:
    """What tells `records`, the rows of one table, apart, but for options that the table has columns for."""
    ways: dict[Way, list[dict[str, str]]] = {}
    for record in records:
        ways.setdefault(_way(record), []).append(dict(flat(record.cell.options)))
    return Distinctions({way: dict(_differing(options, spoken_for)) for way, options in ways.items()})


def _differing(rows: Sequence[Mapping[str, str]], spoken_for: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for name in dict.fromkeys(name for row in rows for name in row if name not in spoken_for):
        counts = Counter(row.get(name, "") for row in rows)
        (value, count), *others = counts.most_common()
        if others:
            yield name, value if count > max(2, len(rows) / 2) else None


def _way(record: Record) -> Way:
    return record.cell.backend, record.cell.precision


def flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested options as dotted names and text; lists are joined by +."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
