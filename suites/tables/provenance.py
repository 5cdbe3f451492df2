"""Which devices measured the rows of one machine, and which versions of the suite made them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from suites.records.record import Record

SHOWN = 20
"""Devices or versions that are named before the rest are counted."""


def device_of(record: Record) -> str:
    """The identity of the GPU or CPU that measured, or "unknown"."""
    return str(record.environment.get("uuid") or "unknown")


def devices(records: Iterable[Record]) -> Counter[str]:
    """Records by device. Machines of one name are several devices: their times may differ for that reason alone."""
    return Counter(device_of(record) for record in records)


def maker_of(record: Record) -> str:
    """The version of the suite that made a record, in words."""
    version, commit = record.maker.get("version", ""), str(record.maker.get("commit", ""))[:12]
    changed = " with uncommitted changes" if record.maker.get("dirty") else ""
    suite = " ".join(text for text in (version, commit) if text) or "unknown version"
    return f"{suite}{changed} (harness {record.harness}, scoring {record.scoring})"


def provenance(records: Sequence[Record]) -> list[str]:
    """Lines below the heading of a machine: its devices where there are several, and the makers where they differ."""
    lines = []
    if len(found := devices(records)) > 1:
        lines.append(f"Measured on {len(found)} devices of this name: {_counted(_shortened(found))}.")
    if len(made := Counter(map(maker_of, records))) > 1:
        lines.append(f"Made by {len(made)} versions of the suite: {_counted(made)}.")
    return [text for line in lines for text in ("", line)]


def _shortened(found: Counter[str]) -> Counter[str]:
    """The same with the first part of each identity, as long as they differ in it."""
    short = {device: device[:12] for device in found}
    if len(set(short.values())) < len(found):
        return found
    return Counter({short[device]: count for device, count in found.items()})


def _counted(found: Counter[str]) -> str:
    names = [f"{name} ({count} record{'s' if count > 1 else ''})" for name, count in sorted(found.items())]
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
