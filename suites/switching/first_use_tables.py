"""One-time costs to markdown: builds, openings, first requests of a shape, captures of CUDA graphs, and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backends.base import Array
from suites.records.record import OK, Record
from suites.switching.strategies import Labels
from suites.switching.traffic import Size
from suites.switching.transition_tables import us
from suites.tables.markdown import fitted, notes_cell

FIRST_OF_PROCESS, FIRST_OF_SHAPE = "first request of the process", "first request per shape"
NEW_SHAPE, KNOWN_SHAPE = "new context, new shape", "new context, known shape"

CONTEXT = "context "
"""Prefix of the steps of an opening that create one of several contexts."""


def openings(records: Sequence[Record], labels: Labels) -> list[str]:
    """Return tables with a row for each record, also for those that failed."""
    ordered = sorted(records, key=lambda record: labels.names.of(record, False))
    scored = [record for record in ordered if record.scores]
    header = ("strategy", "build s", "later openings ms", f"{FIRST_OF_PROCESS} ms", f"{FIRST_OF_SHAPE} ms",
              f"{NEW_SHAPE} ms", f"{KNOWN_SHAPE} ms", "capture ms", "first launch µs", "first requests MB", "graphs MB",
              "parity", "not bit-identical", "version", "notes")  # fmt: skip
    lines = ["", "#### One-time costs", "", fitted(header, [_row(r, labels) for r in ordered], 1, repeat_keys=True)]
    steps = {"ms": [_opening_times(record) for record in scored], "MB": [_opening_memory(record) for record in scored]}
    for unit, figures in steps.items():
        names = list(dict.fromkeys(name for by_step in figures for name in by_step))
        rows = [
            [labels.of(record, False), *(by_step.get(name, "") for name in names)]
            for record, by_step in zip(scored, figures, strict=True)
            if by_step
        ]
        if rows:
            lines += ["", f"#### First opening by step, {unit}", ""]
            lines += [fitted(("strategy", *names), rows, 1, repeat_keys=True)]
    return lines


def _row(record: Record, labels: Labels) -> list[str]:
    graphs = record.facts.get("no_cuda_graph", "")
    loading = record.facts.get("cuda_module_loading", "").lower()
    notes = notes_cell(
        f"CUDA modules loaded {loading}" if loading else "",
        "" if record.outcome == OK else f"{record.outcome}: {record.reason}",
        f"no CUDA graphs: {graphs}" if graphs else "",
        _unused_shapes(record),
    )
    built = record.artifacts.get("built", {}).get("seconds")
    seconds = "" if built is None else f"{built:.0f}"
    figures = _figures(record) if record.scores else [""] * 11
    return [labels.of(record, False), seconds, *figures, record.cell.release, notes]


def first_times(records: Sequence[Record], labels: Labels) -> str:
    """Return first requests and captures by shape, in ms with minimum and maximum."""
    rows: list[tuple[str, str, Mapping[Size, str]]] = []
    for record in sorted((r for r in records if r.scores), key=lambda r: labels.names.of(r, False)):
        label, captures = labels.of(record, False), record.scores["captures"]
        for kind, requests in _first_requests(record).items():
            extra: dict[Size, list[int]] = {}
            for request in requests:
                extra.setdefault(_size(request), []).append(_beyond(request))
            rows.append((label, kind, {shape: _spread(times) for shape, times in extra.items()}))
        rows.append((label, "capture", {_size(capture): _spread(capture["capture"]) for capture in captures}))
        launches = {_size(capture): np.subtract(capture["launch"], capture["again"]) for capture in captures}
        rows.append((label, "first launch", {shape: _spread(times) for shape, times in launches.items()}))
    shapes = sorted({shape for *_, by_shape in rows for shape in by_shape}, key=lambda shape: (shape[1], shape[0]))
    header = ("strategy", "event", *(f"{batch}x{sequence}" for batch, sequence in shapes))
    filled = [[label, kind, *(by_shape.get(s, "") for s in shapes)] for label, kind, by_shape in rows if by_shape]
    return fitted(header, filled, 2, repeat_keys=True)


def _size(event: Mapping[str, Any]) -> Size:
    batch, sequence = event["shape"]
    return batch, sequence


def _first_requests(record: Record) -> dict[str, list[Mapping[str, Any]]]:
    """Return the first requests of shapes by kind."""
    starts = [start["met"] for start in record.scores.get("starts", ())]
    cold: dict[str, list[Mapping[str, Any]]] = {"process": [], "context": []}
    for request in record.scores["cold"]:
        cold[request["where"]].append(request)
    return {
        FIRST_OF_PROCESS: [request for requests in starts for request in requests[:1]],
        FIRST_OF_SHAPE: [request for requests in starts for request in requests[1:]],
        NEW_SHAPE: cold["process"],
        KNOWN_SHAPE: cold["context"],
    }


def _beyond(request: Mapping[str, Any]) -> int:
    """Return the extra time of a first request over the third, in ns."""
    ((first, _, third),) = request["samples"]["whole"]
    return int(first - third)


def _spread(nanoseconds: Sequence[float] | Array) -> str:
    """Return the median in ms, with minimum and maximum in brackets if there are several values."""
    low, middle, high = np.percentile(nanoseconds, [0, 50, 100]) / 1e6
    return f"{middle:.2f} ({low:.2f} to {high:.2f})" if len(nanoseconds) > 1 else f"{middle:.2f}"


def _figures(record: Record) -> list[str]:
    scores = record.scores
    later = [opening["ns"] for opening in scores["openings"][1:]]
    captures, memory = scores["captures"], record.facts.get("memory", {})
    launches = [np.subtract(capture["launch"], capture["again"]) for capture in captures]
    kept = record.facts.get("graphs")
    each = np.median([x for capture in captures for x in capture["bytes"]]) / 1e6 if captures else 0
    graphs = f"{memory['graphs'] / 1e6:,.0f} ({kept}; one {each:,.1f})" if "graphs" in memory else ""
    return [
        f"{np.median([sum(steps.values()) for steps in later]) / 1e6:.0f}" if later else "",
        *map(_first, _first_requests(record).values()),
        f"{np.median([x for capture in captures for x in capture['capture']]) / 1e6:.2f}" if captures else "",
        us(np.median(launches)) if captures else "",
        f"{memory['shapes'] / 1e6:,.0f}" if "shapes" in memory else "",
        graphs,
        *_parity(scores["parity"]),
    ]


def _opening_times(record: Record) -> dict[str, str]:
    """Return the median of each step in ms over processes. With several, add the total with minimum and maximum."""
    scores = record.scores
    openings = [scores["openings"][0]["ns"], *(start["opening"] for start in scores.get("starts", ()))]
    by_step: dict[str, list[int]] = {}
    for opening in openings:
        for name, nanoseconds in _contexts_together(opening).items():
            by_step.setdefault(name, []).append(nanoseconds)
    low, middle, high = np.percentile([sum(opening.values()) for opening in openings], [0, 50, 100]) / 1e6
    total = {"total": f"{middle:.0f} ({low:.0f} to {high:.0f})"} if len(openings) > 1 else {}
    return {**total, **{name: f"{np.median(times) / 1e6:.0f}" for name, times in by_step.items()}}


def _contexts_together(opening: Mapping[str, int]) -> dict[str, int]:
    """Return the steps of an opening with the sum of all contexts as one step."""
    steps: dict[str, int] = {}
    for name, amount in opening.items():
        step = "contexts" if name.startswith(CONTEXT) else name
        steps[step] = steps.get(step, 0) + amount
    return steps


def _first(requests: Sequence[Mapping[str, Any]]) -> str:
    """Return the extra time over all shapes in ms."""
    return _spread([_beyond(request) for request in requests]) if requests else ""


def _opening_memory(record: Record) -> dict[str, str]:
    """Return the device memory of each step of the opening in MB, and in brackets that of single contexts."""
    opening = record.facts.get("memory", {}).get("opening", {})
    sizes = {name: size for name, size in _contexts_together(opening).items() if abs(size) >= 1e5}
    texts = {name: f"{size / 1e6:,.0f}" for name, size in sizes.items()}
    each = [size for name, size in opening.items() if name.startswith(CONTEXT)]
    if len(each) > 1 and "contexts" in texts:
        texts["contexts"] += f" ({', '.join(f'{size / 1e6:,.0f}' for size in each)})"
    elif (count := _contexts(record)) > 1 and not each and "contexts" in texts:
        texts["contexts"] += f" ({count}; one {sizes['contexts'] / count / 1e6:,.0f})"
    return texts


def _contexts(record: Record) -> int:
    options, notes = record.cell.options, record.artifacts.get("built", {}).get("notes", {})
    several = options.get("contexts") == "per_profile" or options.get("engines") == "per_shape"
    return len(notes.get("profiles", [])) if several else 1


def _parity(parity: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the largest difference, and the number of outputs that are not bit-identical."""
    if not parity:
        return "", ""
    worst = max(parity, key=lambda check: float(np.nan_to_num(check["difference"], nan=np.inf)))
    unequal = sum(check["unequal"] for check in parity)
    return f"{worst['difference']:.1e}", f"{unequal} of {sum(check['transitions'] for check in parity)}"


def _unused_shapes(record: Record) -> str:
    """Return a note about shapes that no drawn request has."""
    shapes = record.artifacts.get("inputs", {}).get("notes", {}).get("made_up", [])
    return f"artificial lengths for {', '.join(shapes)}: the distribution never gives these shapes" if shapes else ""
