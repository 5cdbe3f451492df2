"""Pairs of records of two sides whose cells are equal, or equal in all but the backend."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache

from backends.registry import descriptions
from suites.comparing.sides import Kind, Side
from suites.records.record import Record
from suites.schema.refusals import Refused
from suites.text import one_line

Options = dict[str, object]

MOST = 50
"""Most records of a side that a refusal searches for the nearest cells."""

REPLACED_BY_BACKEND = ("backend", "release")
"""Fields of a cell that differ between two backends."""


@dataclass(frozen=True)
class Pair:
    """Records of both sides that are compared."""

    a: Record
    b: Record

    @property
    def machines(self) -> tuple[str, str]:
        return machine_of(self.a), machine_of(self.b)


@dataclass(frozen=True)
class Pairs:
    """All pairs of two sides, and the ids of the cells without a partner."""

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()


def machine_of(record: Record) -> str:
    return record.environment.machine


def pairs_of(a: Side, b: Side) -> Pairs:
    """Pair the records of two sides.

    Two single records are a pair, whatever differs between them. If a side is a backend, cells must be equal in all but
    the backend, its release and its own options. Otherwise the cells must be the same. If both sides have a machine in
    common, records are paired within a machine only.

    Raises:
        Refused: there is no pair.
    """
    if a.kind is Kind.record and b.kind is Kind.record:
        return Pairs((Pair(a.records[0], b.records[0]),))
    by_backend = Kind.backend in (a.kind, b.kind)
    common_machine = bool({machine_of(r) for r in a.records} & {machine_of(r) for r in b.records})
    candidates: dict[str, list[Record]] = {}
    for record in b.records:
        candidates.setdefault(_rough_key(record, by_backend, common_machine), []).append(record)
    pairs = [
        Pair(one, other)
        for one in a.records
        for other in candidates.get(_rough_key(one, by_backend, common_machine), ())
        if not by_backend or _same_options(one, other)
    ]
    if not pairs:
        raise Refused(_no_pair(a, b))
    paired_a, paired_b = {id(pair.a) for pair in pairs}, {id(pair.b) for pair in pairs}
    return Pairs(tuple(pairs), _ids(a.records, paired_a), _ids(b.records, paired_b))


def _ids(records: Sequence[Record], paired: set[int]) -> tuple[str, ...]:
    return tuple(sorted(record.cell.id for record in records if id(record) not in paired))


def _rough_key(record: Record, by_backend: bool, with_machine: bool) -> str:
    """Return a key that is equal for records that may be a pair."""
    machine = machine_of(record) if with_machine else ""
    if not by_backend:
        return f"{machine} {record.cell.id}"
    data = {name: value for name, value in record.cell.to_json().items() if name not in REPLACED_BY_BACKEND}
    data["options"] = {}
    return f"{machine} {json.dumps(data, sort_keys=True)}"


@cache
def _own_options() -> frozenset[str]:
    """Return the names of options that only some backends have."""
    return frozenset(item.name for description in descriptions().values() for item in fields(description.options))


def _same_options(a: Record, b: Record) -> bool:
    """Return whether the options of two backends are equal. An option that only one of them has is not compared."""
    one, other = _comparable_options(a), _comparable_options(b)
    names = {*one, *other}
    return all(one.get(name) == other.get(name) or _is_own(name, one, other) for name in names)


def _is_own(name: str, one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    return name in _own_options() and (name not in one or name not in other)


def _comparable_options(record: Record) -> Options:
    """Return the options of a cell. The default placement of Q/DQ, which depends on the backend, is left out."""
    options: Options = json.loads(json.dumps(record.cell.options))
    quantization, description = options.get("quantization"), descriptions().get(record.cell.backend)
    if isinstance(quantization, dict) and description and quantization.get("placement") == description.placement.name:
        del quantization["placement"]
    return options


def _no_pair(a: Side, b: Side) -> str:
    """Return the refusal of sides without a pair: it names the smallest difference between two of their cells."""
    nearest = min(
        (tuple(cell_differences(one, other)) for one in a.records[:MOST] for other in b.records[:MOST]),
        key=len,
        default=(),
    )
    shown = "; ".join(nearest[:3]) + (f" and {len(nearest) - 3} more" if len(nearest) > 3 else "")
    counts = f"{a.source} ({len(a.records)} records) and {b.source} ({len(b.records)} records)"
    if not nearest:
        return f"{counts} have no cell in common; give two sides with latency records"
    return (
        f"{counts} have no cell in common; the nearest cells differ in {shown}; give two record files to compare them"
    )


def cell_differences(a: Record, b: Record) -> Iterator[str]:
    """Yield the fields in which two cells differ, with both values."""
    one, other = _flat(a.cell.to_json()), _flat(b.cell.to_json())
    for name in dict.fromkeys((*one, *other)):
        if one.get(name) != other.get(name):
            yield one_line(f"{name} ({_shown(one, name)} and {_shown(other, name)})", 120)


def _shown(values: Mapping[str, object], name: str) -> str:
    return str(values.get(name, "unset"))[:40]


def _flat(data: Mapping[str, object], prefix: str = "") -> Options:
    flat: Options = {}
    for name, value in data.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
