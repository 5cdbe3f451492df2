"""What comes before requests: building, opening, meeting a shape for the first time, capturing graphs, and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backends.base import Array
from suites.records.record import OK, Record
from suites.switching.strategy_names import Names
from suites.switching.traffic import Size
from suites.switching.transition_tables import us
from suites.tables.markdown import joined, markdown


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
        figures = _figures(record) if record.scores else [""] * 12
        rows.append([names.of(record, False), seconds, *figures, notes])
    header = ("strategy", "build s", "opening ms", "later", "first of a process ms", "then first in it",
              "first in process", "in context", "capture ms",
              "first launch us", "MB of an opening", "of first requests", "of graphs", "parity", "notes")  # fmt: skip
    return [*names.caption(), "", markdown(header, rows)]


def first_times(records: Sequence[Record], names: Names) -> str:
    """By shape what comes before its requests are warm: its first requests, and its captures."""
    rows: list[tuple[str, str, Mapping[Size, str]]] = []
    for record in sorted((r for r in records if r.scores), key=lambda r: names.of(r, False)):
        name, captures = names.of(record, False), record.scores["captures"]
        for what, meetings in _meetings(record).items():
            over: dict[Size, list[int]] = {}
            for one in meetings:
                over.setdefault(_size(one), []).append(_beyond(one))
            rows.append((name, what, {shape: _spread(taken) for shape, taken in over.items()}))
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


def _meetings(record: Record) -> dict[str, list[Mapping[str, Any]]]:
    """First requests of shapes by what they were the first in."""
    starts = [start["met"] for start in record.scores.get("starts", ())]
    cold: dict[str, list[Mapping[str, Any]]] = {"process": [], "context": []}
    for one in record.scores["cold"]:
        cold[one["where"]].append(one)
    return {
        "first of a process": [one for met in starts for one in met[:1]],
        "then first in it": [one for met in starts for one in met[1:]],
        "first in process": cold["process"],
        "first in context": cold["context"],
    }


def _beyond(one: Mapping[str, Any]) -> int:
    """What a first request took beyond the third."""
    ((first, _, third),) = one["samples"]["whole"]
    return int(first - third)


def _spread(nanoseconds: Sequence[float] | Array) -> str:
    """Milliseconds: the median and, where there are several, the least and the most in brackets."""
    low, middle, high = np.percentile(nanoseconds, [0, 50, 100]) / 1e6
    return f"{middle:.2f} ({low:.2f} to {high:.2f})" if len(nanoseconds) > 1 else f"{middle:.2f}"


def _figures(record: Record) -> list[str]:
    scores = record.scores
    first, *later = [one["ns"] for one in scores["openings"]]
    captures, memory = scores["captures"], record.facts.get("memory", {})
    launches = [np.subtract(one["launch"], one["again"]) for one in captures]
    kept = record.facts.get("graphs")
    each = np.median([x for one in captures for x in one["bytes"]]) / 1e6 if captures else 0
    graphs = f"{memory['graphs'] / 1e6:,.0f} ({kept}; one {each:,.1f})" if "graphs" in memory else ""
    return [
        _steps([first, *(start["opening"] for start in scores.get("starts", ()))]),
        f"{np.median([sum(steps.values()) for steps in later]) / 1e6:.0f}" if later else "",
        *map(_first, _meetings(record).values()),
        f"{np.median([x for one in captures for x in one['capture']]) / 1e6:.2f}" if captures else "",
        us(np.median(launches)) if captures else "",
        _opened(record, memory),
        f"{memory['shapes'] / 1e6:,.0f}" if "shapes" in memory else "",
        graphs,
        _parity(scores["parity"]),
    ]


def _steps(openings: Sequence[Mapping[str, int]]) -> str:
    """The median of each step over processes, and of all of them with the least and the most."""
    taken: dict[str, list[int]] = {}
    for opening in openings:
        for name, took in _contexts_as_one(opening).items():
            taken.setdefault(name, []).append(took)
    steps = "; ".join(f"{name} {np.median(took) / 1e6:.0f}" for name, took in taken.items())
    low, middle, high = np.percentile([sum(opening.values()) for opening in openings], [0, 50, 100]) / 1e6
    return f"{steps}; in all {middle:.0f} ({low:.0f} to {high:.0f})" if len(openings) > 1 else steps


def _contexts_as_one(opening: Mapping[str, int]) -> dict[str, int]:
    steps: dict[str, int] = {}
    for name, took in opening.items():
        known = "contexts" if name.startswith("context ") else name
        steps[known] = steps.get(known, 0) + took
    return steps


def _first(meetings: Sequence[Mapping[str, Any]]) -> str:
    """Milliseconds over all shapes."""
    return _spread([_beyond(one) for one in meetings]) if meetings else ""


def _opened(record: Record, memory: Mapping[str, Any]) -> str:
    """What each step of opening took of the device's memory; of several contexts also what each took."""
    opening = memory.get("opening", {})
    taken = {name: size for name, size in _contexts_as_one(opening).items() if abs(size) >= 1e5}
    texts = {name: f"{name} {size / 1e6:,.0f}" for name, size in taken.items()}
    each = [size for name, size in opening.items() if name.startswith("context ")]
    if len(each) > 1 and "contexts" in texts:
        texts["contexts"] += f" ({', '.join(f'{size / 1e6:,.0f}' for size in each)})"
    elif (several := _contexts(record)) > 1 and not each and "contexts" in texts:
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
