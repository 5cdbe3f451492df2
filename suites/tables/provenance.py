"""Devices that measured the records of one machine, and versions of the suite that made them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from suites.records.parts import Maker
from suites.records.record import Record

SHOWN = 20
"""Number of devices or versions that are named; others are counted."""


def device_of(record: Record) -> str:
    """Return the identity of the GPU or CPU that measured, or "unknown"."""
    return record.environment.uuid or "unknown"


def devices(records: Iterable[Record]) -> Counter[str]:
    """Count the records of each device. Times may differ between devices of the same name."""
    return Counter(device_of(record) for record in records)


def maker_of(record: Record) -> str:
    """Return the version of the suite that made a record as text."""
    maker = record.maker or Maker()
    changed = " with uncommitted changes" if maker.dirty else ""
    suite = " ".join(text for text in (maker.version, maker.commit[:12]) if text) or "unknown version"
    return f"{suite}{changed} (harness {record.harness}, scoring {record.scoring})"


def provenance(records: Sequence[Record]) -> list[str]:
    """Return lines that name the devices, and the versions of the suite, if there are several."""
    lines = []
    if len(counts := devices(records)) > 1:
        lines.append(f"Measured on {len(counts)} devices of this name: {_counted(_shortened(counts))}.")
    if len(makers := Counter(map(maker_of, records))) > 1:
        lines.append(f"Made by {len(makers)} versions of the suite: {_counted(makers)}.")
    return [text for line in lines for text in ("", line)]


def _shortened(counts: Counter[str]) -> Counter[str]:
    """Return the counts by the first part of each identity, if all first parts differ."""
    short = {device: device[:12] for device in counts}
    if len(set(short.values())) < len(counts):
        return counts
    return Counter({short[device]: count for device, count in counts.items()})


def _counted(counts: Counter[str]) -> str:
    names = [f"{name} ({count} record{'s' if count > 1 else ''})" for name, count in sorted(counts.items())]
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
