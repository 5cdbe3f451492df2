"""Records of suite=serving with programmed figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from suites.records.record import Record

MakeRecord = Callable[..., Record]


def point(**changes: Any) -> dict[str, Any]:
    """Return the JSON of a load of 100 requests/s for 10 s."""
    times = dict.fromkeys(("mean", "p50", "p90", "p99", "p999", "max"), 2e6)
    return {
        "purpose": "offered", "offered": 100.0, "clients": 0, "achieved": 100.0, "sent": 1000, "answered": 1000,
        "rejected": 0, "too_long": 0, "errors": 0, "seconds": 10.0, "schedule_s": 10.0, "latency": times,
        "queue": times, "late": times, "batches": {"1": 500, "2": 250}, "tokens": 900, "padded_tokens": 1000,
        "session_ns": 5 * 10**9, "dispatch_ns": 10**6, "assembly_ns": 10**6, **changes,
    }  # fmt: skip


def served(make_record: MakeRecord, *points: dict[str, Any], **fields: Any) -> Record:
    options = {"most_requests": 2, "wait_ms": 1.0, "most_tokens": 0, "workers": 1, **fields.pop("options", {})}
    scores = {"points": list(points), **{name: fields.pop(name) for name in ("highest", "service") if name in fields}}
    return make_record(suite="serving", measurements=(), scores=scores, options=options, **fields)
