"""Strategies of a server in words: the rules of its batches, its streams and its CUDA graphs."""

from __future__ import annotations

from suites.latency.achieved import packs_tokens
from suites.records.record import Record


def batching(record: Record) -> str:
    """Return the rules of batches in words."""
    options = record.cell.options
    most, wait, tokens = (options.get(name, 0) for name in ("most_requests", "wait_ms", "most_tokens"))
    workers = options.get("workers", 1)
    pool = f", {workers} {options.get('pool', 'threads')}" if workers > 1 else ""
    details = ", grouped by length" if options.get("group_by_length") else ""
    details += ", CUDA graphs" if options.get("graph") else ""
    details += ", texts" if options.get("input") == "text" else ""
    if most == 1:
        return f"one request at a time{details}{pool}"
    limit = f" and {tokens} tokens" if tokens else ""
    return f"batches of up to {most} requests{limit}, wait {wait:g} ms{details}{pool}"


def strategy(record: Record) -> str:
    """Return the rules of batches in a few words, for a column."""
    options = record.cell.options
    most, tokens, wait = (options.get(name, 0) for name in ("most_requests", "most_tokens", "wait_ms"))
    layout = "packed" if packs_tokens(record) else "padded"
    words = ["single requests" if single_requests(record) else f"{most} {layout}"]
    words += [f"{tokens} tokens"] if tokens else []
    words += [f"wait {wait:g} ms"] if wait and not single_requests(record) else []
    words += ["grouped"] if options.get("group_by_length") else []
    words += [f"{options['workers']} {options.get('pool', 'threads')}"] if options.get("workers", 1) > 1 else []
    words += ["graph"] if options.get("graph") else []
    return ", ".join(words)


def single_requests(record: Record) -> bool:
    """Return whether the server runs one request at a time in each stream."""
    return bool(record.cell.options.get("most_requests", 1) == 1)
