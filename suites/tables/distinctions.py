"""The options that tell the rows of one table apart: what most rows share is said once, above it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from suites.records.cell import PROFILES, short_digest
from suites.records.record import Record
from suites.schema.refusals import lines
from suites.statistics.validity import CALIBRATED

Kind = tuple[str, str]
"""A backend and a precision: options are compared among the rows of one kind alone."""


RECIPES = ("smooth", "shift", "exact_residual", "qat_steps", "leave_out", "tokens")
RARE = {"constraints", *(f"quantization.{name}" for name in RECIPES)}
"""Options that a cell has only away from their default: they are said even where no row differs."""


@dataclass(frozen=True)
class Distinctions:
    """By kind and option, where its rows differ: the value that most of them have, or None where none is so common.

    `sources` names texts by the digest that cells hold of them.
    """

    usual: Mapping[Kind, Mapping[str, str | None]]
    sources: Mapping[str, str]

    def of(self, record: Record) -> str:
        """The options in which this record differs from what is usual; an option it lacks is "unset"."""
        options, usual = options_of(record, self.sources), self.usual[_kind(record)]
        own = {name: options.get(name, "") for name in (*options, *usual) if name in usual}
        said = {name: value for name, value in own.items() if value != usual[name] and (value or usual[name])}
        return "; ".join(f"{name}={value}" if value else f"{name} unset" for name, value in said.items())

    def caption(self) -> list[str]:
        """What is usual, as the lines of a paragraph; none if nothing is."""
        kinds = []
        for kind, usual in sorted(self.usual.items()):
            shared = [f"{name}={value}" for name, value in usual.items() if value]
            kinds += [f"{' '.join(kind)}: {', '.join(shared)}"] if shared else []
        return ["", f"Where a row says nothing else, {'; '.join(kinds)}."] if kinds else []


def distinctions(
    records: Sequence[Record], spoken_for: Sequence[str] = PROFILES, sources: Mapping[str, str] | None = None
) -> Distinctions:
    """What tells `records`, the rows of one table, apart, but for options that the table has columns for."""
    kinds: dict[Kind, list[dict[str, str]]] = {}
    for record in records:
        kinds.setdefault(_kind(record), []).append(options_of(record, sources or {}))
    usual = {kind: dict(_differing(options, spoken_for)) for kind, options in kinds.items()}
    return Distinctions(usual, sources or {})


def options_of(record: Record, sources: Mapping[str, str]) -> dict[str, str]:
    """A cell's options by dotted name, and of INT8 and FP8 what calibrated them, though other precisions' cells hold
    it too."""
    cell, options = record.cell, dict(flat(record.cell.options))
    options |= {"model_version": cell.model_version[:8]} if cell.model_version else {}
    if cell.precision in CALIBRATED and "texts" in cell.lengths:
        texts = str(cell.lengths["texts"])
        options["calibrated on"] = str(cell.lengths.get("calibration", sources.get(texts, f"texts {texts[:6]}")))
        options |= {"seed": str(cell.lengths["seed"])} if "seed" in cell.lengths else {}
    # Shown where it differs, as every option.
    return options | ({"harness": str(record.harness)} if record.timed else {"scoring": str(record.scoring)})


def sources_of(accuracy: Iterable[Record]) -> dict[str, str]:
    """Names of calibration texts by digest: the file that a record names, or the one task that they belong to.

    Texts that several tasks share have no name of their own. The project's sentences are always known.
    """
    files: dict[str, str] = {}
    tasks: dict[str, set[str]] = {}
    for record in accuracy:
        lengths = record.cell.lengths
        texts = str(lengths.get("texts"))
        if "calibration" in lengths:
            files[texts] = str(lengths["calibration"])
        else:
            tasks.setdefault(texts, set()).add(str(lengths["task"]))
    return _project_texts() | {texts: min(names) for texts, names in tasks.items() if len(names) == 1} | files


@cache
def _project_texts() -> dict[str, str]:
    file = "sentences.txt"
    return {short_digest(lines(file, f"suites/{file}")): file}


def _differing(rows: Sequence[Mapping[str, str]], spoken_for: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for name in dict.fromkeys(name for row in rows for name in row if name not in spoken_for):
        counts = Counter(row.get(name, "") for row in rows)
        (value, count), *others = counts.most_common()
        if others or name in RARE:
            yield name, value if count > max(2, len(rows) / 2) else None


def _kind(record: Record) -> Kind:
    return record.cell.backend, record.cell.precision


def flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested options as dotted names and text; lists are joined by +."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
