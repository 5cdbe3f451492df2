"""What comes before requests: building, opening, meeting a shape for the first time, capturing graphs, and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backends.base import Array
from suites.record import OK, Record
from suites.switching_names import Names
from suites.tables.rows import joined, markdown
from suites.tables.switching_changes import us
from suites.traffic import Size


def openings(records: Sequence[Record], names: Names) -> list[str]:
    """The lines of a table with a row for each record, those that failed too."""
    rows = []
    for record in sorted(records, key=lambda r: names.of(r, False)):
        reason = "" if record.outcome == OK else f"{record.outcome}: {record.reason}"
        graphs = record.facts.get("no_cuda_graph", "")
        loading = record.facts.get("cuda_module_loading", "").lower()
        notes = joined(record.cell.release, f"CUDA modules loaded {loading}" if loading else "",
                       reason, f"no CUDA graphs: {graphs}" if graphs else "", _made_up(record))  # fmt: skip
        built = record.artifacts.get("built", {}).get("seconds")
        seconds = "" if built is None else f"{built:.0f}"
        figures = _figures(record) if record.scores else [""] * 10
        rows.append([names.of(record, False), seconds, *figures, notes])
    header = ("strategy", "build s", "opening ms", "later", "first in process ms", "in context", "capture ms",
              "first launch us", "MB of an opening", "of first requests", "of graphs", "parity", "notes")  # fmt: skip
    return [*names.caption(), "", markdown(header, rows)]


def first_times(records: Sequence[Record], names: Names) -> str:
    """By shape what comes before its requests are warm: its first request, which comes but once, and its captures."""
    rows: list[tuple[str, str, Mapping[Size, str]]] = []
    for record in sorted((r for r in records if r.scores), key=lambda r: names.of(r, False)):
        name, cold, captures = names.of(record, False), record.scores["cold"], record.scores["captures"]
        for where in ("process", "context"):
            over = {_size(one): np.subtract(*one["samples"]["whole"][0][::2]) for one in cold if one["where"] == where}
            rows.append((name, f"first in {where}", {shape: f"{took / 1e6:.2f}" for shape, took in over.items()}))
        rows.append((name, "capture", {_size(one): _spread(one["capture"]) for one in captures}))
        launches = {_size(one): np.subtract(one["launch"], one["again"]) for one in captures}
        rows.append((name, "first launch", {shape: _spread(over) for shape, over in launches.items()}))
    shapes = sorted({shape for *_, by_shape in rows for shape in by_shape}, key=lambda shape: (shape[1], shape[0]))
    header = ("strategy", "", *(f"{batch}x{sequence}" for batch, sequence in shapes))
    filled = [[name, what, *(by_shape.get(shape, "") for shape in shapes)] for name, what, by_shape in rows if by_shape]
    return markdown(header, filled)


def _size(one: Mapping[str, Any]) -> Size:
    batch, sequence = one["shape"]
    return batch, sequence


def _spread(nanoseconds: Sequence[float] | Array) -> str:
    """Milliseconds: the median and, in brackets, the least and the most."""
    low, middle, high = np.percentile(nanoseconds, [0, 50, 100]) / 1e6
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _figures(record: Record) -> list[str]:
    scores = record.scores
    first, *later = [one["ns"] for one in scores["openings"]]
    captures, memory = scores["captures"], record.facts.get("memory", {})
    launches = [np.subtract(one["launch"], one["again"]) for one in captures]
    kept = record.facts.get("graphs")
    each = np.median([x for one in captures for x in one["bytes"]]) / 1e6 if captures else 0
    graphs = f"{memory['graphs'] / 1e6:,.0f} ({kept}; one {each:,.1f})" if "graphs" in memory else ""
    return [
        _steps(first),
        f"{np.median([sum(steps.values()) for steps in later]) / 1e6:.0f}" if later else "",
        *(_first(scores["cold"], where) for where in ("process", "context")),
        f"{np.median([x for one in captures for x in one['capture']]) / 1e6:.2f}" if captures else "",
        us(np.median(launches)) if captures else "",
        _opened(record, memory),
        f"{memory['shapes'] / 1e6:,.0f}" if "shapes" in memory else "",
        graphs,
        _parity(scores["parity"]),
    ]


def _steps(steps: Mapping[str, int]) -> str:
    return "; ".join(f"{name} {took / 1e6:.0f}" for name, took in steps.items())


def _first(cold: Sequence[Mapping[str, Any]], where: str) -> str:
    """The median, over shapes, of the first request beyond the third, and the largest."""
    found = [one["samples"]["whole"][0] for one in cold if one["where"] == where]
    if not found:
        return ""
    over = [first - third for first, _, third in found]
    return f"{np.median(over) / 1e6:.2f} (at most {max(over) / 1e6:.2f})"


def _opened(record: Record, memory: Mapping[str, Any]) -> str:
    """What each step of opening took of the device's memory; of several contexts also what one took."""
    taken = {name: size for name, size in memory.get("opening", {}).items() if abs(size) >= 1e5}
    texts = {name: f"{name} {size / 1e6:,.0f}" for name, size in taken.items()}
    several = _contexts(record)
    if several > 1 and "contexts" in texts:
        texts["contexts"] += f" ({several}; one {taken['contexts'] / several / 1e6:,.0f})"
    return "; ".join(texts.values())


def _contexts(record: Record) -> int:
    options, notes = record.cell.options, record.artifacts.get("built", {}).get("notes", {})
    several = options.get("contexts") == "per_profile" or options.get("engines") == "per_shape"
    return len(notes.get("profiles", [])) if several else 1


def _parity(parity: Sequence[Mapping[str, Any]]) -> str:
    if not parity:
        return ""
    worst = max(parity, key=lambda one: float(np.nan_to_num(one["difference"], nan=np.inf)))
    unequal = sum(one["unequal"] for one in parity)
    return f"{worst['difference']:.1e}, {unequal} of {sum(one['transitions'] for one in parity)}"


def _made_up(record: Record) -> str:
    """Shapes that the lengths never bring requests to."""
    shapes = record.artifacts.get("inputs", {}).get("notes", {}).get("made_up", [])
    return f"lengths of {', '.join(shapes)} were made up, for they never come" if shapes else ""
