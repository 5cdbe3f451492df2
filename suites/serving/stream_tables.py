"""Streams against batches: the same engine with one to eight streams, and with one stream and larger batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from suites.records.record import OK, Record
from suites.serving.load_summary import SAME, workload_of
from suites.serving.result import SATURATED, ServingResult
from suites.serving.strategy_text import batching
from suites.tables.distinctions import distinctions
from suites.tables.markdown import by_machine, configuration, digits, fitted, one_machine, wrapped

LEGEND = """\
Several streams against larger batches. Each table is one backend and precision of a model. A worker is a session with
its own execution context and CUDA stream, in a thread or a process.

- **streams**: number of workers that run batches at the same time.
- **most requests**: most requests of a batch.
- **saturated requests/s**: highest throughput, with so many clients that the next batch is always complete.
- **load at N ms**: highest load with the percentile of latencies within this bound.
- **GPU busy**: at the highest throughput, from the driver."""


def stream_tables(records: Iterable[Record]) -> str:
    """Return a section for each machine, with a table for each backend and precision that ran with several streams."""
    measured = [record for record in records if record.outcome == OK and isinstance(record.result, ServingResult)]
    groups = [group for group in _groups(measured) if len({_workers(record) for record in group}) > 1]
    return by_machine("Streams", LEGEND, [record for group in groups for record in group], _section) if groups else ""


def _groups(records: Iterable[Record]) -> list[list[Record]]:
    """Return records of the same model, lengths and configuration, whatever their streams and batches."""
    ordered = sorted(records, key=_key)
    return [[*members] for _, members in groupby(ordered, key=_key)]


def _key(record: Record) -> tuple[object, ...]:
    cell, changing = record.cell, ("workers", "pool", "most_requests", "wait_ms", "queue", "bound", "shares", "loads")
    options = sorted((name, value) for name, value in cell.options.items() if name not in changing)
    sequences = sorted({sequence for _, sequence in cell.shapes})
    return *workload_of(record), cell.backend, cell.precision, repr(options), repr(sequences)


def _section(records: Sequence[Record]) -> str:
    common = distinctions(records)
    lines = ["", one_machine(records), *common.caption()]
    for group in _groups(records):
        cell = group[0].cell
        ordered = sorted(group, key=lambda record: (_most(record), _workers(record)))
        bounds = sorted({highest.bound_ms for record in group for highest in _result(record).highest})
        header = ("streams", "most requests", "saturated requests/s", *(f"load at {ms:g} ms" for ms in bounds),
                  "GPU busy", "configuration")  # fmt: skip
        rows = [_row(record, bounds, configuration(record, common.of(record))) for record in ordered]
        lines += ["", f"### {cell.model}, {cell.backend} {cell.precision}", "", fitted(header, rows, 2)]
        lines += ["", *(wrapped(f"- {sentence}", "  ") for sentence in advice(ordered))]
    return "\n".join(lines)


def advice(records: Sequence[Record]) -> list[str]:
    """Return a sentence for each bound, and for the highest throughput: one stream against several.

    Args:
        records: of one backend and precision.
    """
    bounds = sorted({highest.bound_ms for record in records for highest in _result(record).highest})
    compared = [(f"within {ms:g} ms", {record.cell.id: _load(record, ms) for record in records}) for ms in bounds]
    compared.append(("saturated", {record.cell.id: _saturated(record) for record in records}))
    return [sentence for title, loads in compared if (sentence := _sentence(title, records, loads))]


def _sentence(title: str, records: Sequence[Record], loads: dict[str, float | None]) -> str:
    """Return the comparison of the best record of one stream with the best one of several; empty without both."""
    known = [(load, record) for record in records if (load := loads[record.cell.id])]
    single = max((pair for pair in known if _workers(pair[1]) == 1), key=lambda pair: pair[0], default=None)
    several = max((pair for pair in known if _workers(pair[1]) > 1), key=lambda pair: pair[0], default=None)
    if single is None or several is None:
        return ""
    ratio = several[0] / single[0]
    verdict = "no difference"
    if ratio >= SAME or ratio <= 1 / SAME:
        verdict = "several streams pay" if ratio > 1 else "one stream is better"
    return (
        f"**{title}**: {verdict}. {_workers(several[1])} streams ({batching(several[1])}) carry {digits(several[0])} "
        f"requests/s, {ratio:.2f} times the {digits(single[0])} of one stream ({batching(single[1])})."
    )


def _row(record: Record, bounds: Sequence[float], options: str) -> list[str]:
    saturated = _saturated(record)
    busy = next((p.gpu_busy for p in _result(record).points if p.purpose == SATURATED), None)
    loads = [_load(record, ms) for ms in bounds]
    return [
        str(_workers(record)),
        str(_most(record)),
        digits(saturated) if saturated else "",
        *(digits(load) if load else "" for load in loads),
        "" if busy is None else f"{busy:.0%}",
        options,
    ]


def _result(record: Record) -> ServingResult:
    assert isinstance(record.result, ServingResult)
    return record.result


def _workers(record: Record) -> int:
    return int(record.cell.options.get("workers", 1))


def _most(record: Record) -> int:
    return int(record.cell.options.get("most_requests", 1))


def _saturated(record: Record) -> float | None:
    return next((point.achieved for point in _result(record).points if point.purpose == SATURATED), None)


def _load(record: Record, bound_ms: float) -> float | None:
    return next((highest.load for highest in _result(record).highest if highest.bound_ms == bound_ms), None)
