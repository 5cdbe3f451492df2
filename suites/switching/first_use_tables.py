"""One-time costs to markdown: builds, openings, first requests of a shape, captures of CUDA graphs, and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from backends.base import Array
from suites.records.facts import DeviceMemory
from suites.records.record import OK, Record
from suites.switching.costs import result_of
from suites.switching.result import FirstRequests, Parity, Size
from suites.switching.strategies import Labels
from suites.switching.transition_tables import us
from suites.tables.markdown import fitted, notes_cell

FIRST_OF_PROCESS, FIRST_OF_SHAPE = "first request of the process", "first request per shape"
NEW_SHAPE, KNOWN_SHAPE = "new context, new shape", "new context, known shape"

CONTEXT = "context "
"""Prefix of the steps of an opening that create one of several contexts."""


def openings(records: Sequence[Record], labels: Labels) -> list[str]:
    """Return tables with a row for each record, also for those that failed."""
    ordered = sorted(records, key=lambda record: labels.names.of(record, False))
    scored = [record for record in ordered if record.result]
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
    graphs = record.facts.no_cuda_graph
    loading = record.facts.cuda_module_loading.lower()
    notes = notes_cell(
        f"CUDA modules loaded {loading}" if loading else "",
        "" if record.outcome == OK else f"{record.outcome}: {record.reason}",
        f"no CUDA graphs: {graphs}" if graphs else "",
        _unused_shapes(record),
    )
    built = record.artifacts.built
    seconds = "" if built is None or built.seconds is None else f"{built.seconds:.0f}"
    figures = _figures(record) if record.result else [""] * 11
    return [labels.of(record, False), seconds, *figures, record.cell.release, notes]


def first_times(records: Sequence[Record], labels: Labels) -> str:
    """Return first requests and captures by shape, in ms with minimum and maximum."""
    rows: list[tuple[str, str, Mapping[Size, str]]] = []
    for record in sorted((r for r in records if r.result), key=lambda r: labels.names.of(r, False)):
        label, captures = labels.of(record, False), result_of(record).captures
        for kind, requests in _first_requests(record).items():
            extra: dict[Size, list[int]] = {}
            for request in requests:
                extra.setdefault(request.shape, []).append(_beyond(request))
            rows.append((label, kind, {shape: _spread(times) for shape, times in extra.items()}))
        rows.append((label, "capture", {capture.shape: _spread(capture.capture) for capture in captures}))
        launches = {capture.shape: np.subtract(capture.launch, capture.again) for capture in captures}
        rows.append((label, "first launch", {shape: _spread(times) for shape, times in launches.items()}))
    shapes = sorted({shape for *_, by_shape in rows for shape in by_shape}, key=lambda shape: (shape[1], shape[0]))
    header = ("strategy", "event", *(f"{batch}x{sequence}" for batch, sequence in shapes))
    filled = [[label, kind, *(by_shape.get(s, "") for s in shapes)] for label, kind, by_shape in rows if by_shape]
    return fitted(header, filled, 2, repeat_keys=True)


def _first_requests(record: Record) -> dict[str, list[FirstRequests]]:
    """Return the first requests of shapes by kind."""
    starts = [start.first_requests for start in result_of(record).starts]
    cold: dict[str, list[FirstRequests]] = {"process": [], "context": []}
    for request in result_of(record).cold:
        cold[request.where].append(request)
    return {
        FIRST_OF_PROCESS: [request for requests in starts for request in requests[:1]],
        FIRST_OF_SHAPE: [request for requests in starts for request in requests[1:]],
        NEW_SHAPE: cold["process"],
        KNOWN_SHAPE: cold["context"],
    }


def _beyond(request: FirstRequests) -> int:
    """Return the extra time of a first request over the third, in ns."""
    ((first, _, third),) = request.samples.whole
    return first - third


def _spread(nanoseconds: Sequence[float] | Array) -> str:
    """Return the median in ms, with minimum and maximum in brackets if there are several values."""
    low, middle, high = np.percentile(nanoseconds, [0, 50, 100]) / 1e6
    return f"{middle:.2f} ({low:.2f} to {high:.2f})" if len(nanoseconds) > 1 else f"{middle:.2f}"


def _figures(record: Record) -> list[str]:
    result = result_of(record)
    later = [opening.ns for opening in result.openings[1:]]
    captures, memory = result.captures, record.facts.memory or DeviceMemory()
    launches = [np.subtract(capture.launch, capture.again) for capture in captures]
    kept = record.facts.graphs
    each = np.median([x for capture in captures for x in capture.bytes]) / 1e6 if captures else 0
    graphs = "" if memory.graphs is None else f"{memory.graphs / 1e6:,.0f} ({kept}; one {each:,.1f})"
    return [
        f"{np.median([sum(steps.values()) for steps in later]) / 1e6:.0f}" if later else "",
        *map(_first, _first_requests(record).values()),
        f"{np.median([x for capture in captures for x in capture.capture]) / 1e6:.2f}" if captures else "",
        us(np.median(launches)) if captures else "",
        "" if memory.shapes is None else f"{memory.shapes / 1e6:,.0f}",
        graphs,
        *_parity(result.parity),
    ]


def _opening_times(record: Record) -> dict[str, str]:
    """Return the median of each step in ms over processes. With several, add the total with minimum and maximum."""
    result = result_of(record)
    openings = [result.openings[0].ns, *(start.opening for start in result.starts)]
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


def _first(requests: Sequence[FirstRequests]) -> str:
    """Return the extra time over all shapes in ms."""
    return _spread([_beyond(request) for request in requests]) if requests else ""


def _opening_memory(record: Record) -> dict[str, str]:
    """Return the device memory of each step of the opening in MB, and in brackets that of single contexts."""
    opening = record.facts.memory.opening if record.facts.memory else {}
    sizes = {name: size for name, size in _contexts_together(opening).items() if abs(size) >= 1e5}
    texts = {name: f"{size / 1e6:,.0f}" for name, size in sizes.items()}
    each = [size for name, size in opening.items() if name.startswith(CONTEXT)]
    if len(each) > 1 and "contexts" in texts:
        texts["contexts"] += f" ({', '.join(f'{size / 1e6:,.0f}' for size in each)})"
    elif (count := _contexts(record)) > 1 and not each and "contexts" in texts:
        texts["contexts"] += f" ({count}; one {sizes['contexts'] / count / 1e6:,.0f})"
    return texts


def _contexts(record: Record) -> int:
    options = record.cell.options
    several = options.get("contexts") == "per_profile" or options.get("engines") == "per_shape"
    return len(record.artifacts.built_notes.profiles) if several else 1


def _parity(parity: Sequence[Parity]) -> tuple[str, str]:
    """Return the largest difference, and the number of outputs that are not bit-identical."""
    if not parity:
        return "", ""
    differences = [np.nan if check.difference is None else check.difference for check in parity]
    worst = max(differences, key=lambda difference: float(np.nan_to_num(difference, nan=np.inf)))
    unequal = sum(check.unequal for check in parity)
    return f"{worst:.1e}", f"{unequal} of {sum(check.transitions for check in parity)}"


def _unused_shapes(record: Record) -> str:
    """Return a note about shapes that no drawn request has."""
    shapes = record.artifacts.input_notes.made_up
    return f"artificial lengths for {', '.join(shapes)}: the distribution never gives these shapes" if shapes else ""
