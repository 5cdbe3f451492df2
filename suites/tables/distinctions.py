"""Options that distinguish the rows of one table. Values that most rows share are named once, above the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from suites.records.cell import PROFILES, short_digest
from suites.records.record import Record
from suites.schema.refusals import lines
from suites.statistics.validity import CALIBRATED
from suites.tables.markdown import wrapped

Kind = tuple[str, str]
"""A backend and a precision. Options are compared only within one kind."""


RECIPES = ("smooth", "shift", "exact_residual", "qat_steps", "leave_out", "tokens")

CAPTION = "Options that most rows share. A row names only the options in which it differs."

RARE = {"constraints", "provider", *(f"quantization.{name}" for name in RECIPES)}
"""Options that a cell has only if they are not the default. They are named even if no row differs."""


@dataclass(frozen=True)
class Distinctions:
    """Common value of each option in which rows differ, by kind; None if no value is common enough.

    `sources` has the names of calibration texts by their digest in cells.
    """

    common: Mapping[Kind, Mapping[str, str | None]]
    sources: Mapping[str, str]

    def of(self, record: Record) -> str:
        """Return the options in which this record differs from the common values; a missing option is "unset"."""
        options, usual = named_options(record, self.sources), self.common[_kind(record)]
        values = {name: options.get(name, "") for name in (*options, *usual) if name in usual and _has(options, name)}
        shown = {name: value for name, value in values.items() if value != usual[name] and (value or usual[name])}
        return "; ".join(f"{name}={value}" if value else f"{name} unset" for name, value in shown.items())

    def caption(self) -> list[str]:
        """Return the lines of a list of the common values; none if there are none."""
        lines = []
        for kind, usual in sorted(self.common.items()):
            shared = [f"{name}={value}" for name, value in usual.items() if value]
            lines += [wrapped(f"- {' '.join(kind)}: {', '.join(shared)}", "  ")] if shared else []
        return ["", CAPTION, "", *lines] if lines else []


def distinctions(
    records: Sequence[Record], in_columns: Sequence[str] = PROFILES, sources: Mapping[str, str] | None = None
) -> Distinctions:
    """Return the options that distinguish `records`, the rows of one table. Options `in_columns` are left out."""
    kinds: dict[Kind, list[dict[str, str]]] = {}
    for record in records:
        kinds.setdefault(_kind(record), []).append(named_options(record, sources or {}))
    usual = {kind: dict(_differing(options, in_columns)) for kind, options in kinds.items()}
    return Distinctions(usual, sources or {})


def named_options(record: Record, sources: Mapping[str, str]) -> dict[str, str]:
    """Return a cell's options by dotted name. For INT8 and FP8 they include the calibration texts and their seed."""
    cell, options = record.cell, dict(flat(record.cell.options))
    options |= {"model_version": cell.model_version[:8]} if cell.model_version else {}
    if cell.precision in CALIBRATED and "texts" in cell.lengths:
        texts = str(cell.lengths["texts"])
        options["calibrated on"] = str(cell.lengths.get("calibration", sources.get(texts, f"texts {texts[:6]}")))
        options |= {"seed": str(cell.lengths["seed"])} if "seed" in cell.lengths else {}
    return options | ({"harness": str(record.harness)} if record.timed else {"scoring": str(record.scoring)})


def sources_of(accuracy: Iterable[Record]) -> dict[str, str]:
    """Return names of calibration texts by digest: the file in a record, or the one task with these texts.

    Texts that several tasks share have no name. The name of the project's sentences is always included.
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


def _differing(rows: Sequence[Mapping[str, str]], in_columns: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for name in dict.fromkeys(name for row in rows for name in row if name not in in_columns):
        counts = Counter(row.get(name, "") for row in rows if _has(row, name))
        (value, count), *others = counts.most_common()
        if others or name in RARE:
            yield name, value if count > max(2, len(rows) / 2) else None


def _has(options: Mapping[str, str], name: str) -> bool:
    """Return whether rows can differ in an option. Dynamic quantization does not have most options of a recipe."""
    return name in options or options.get("quantization.scheme") != "dynamic" or not name.startswith("quantization.")


def _kind(record: Record) -> Kind:
    return record.cell.backend, record.cell.precision


def flat(options: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested options as dotted names and text; lists are joined by +."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
