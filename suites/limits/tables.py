"""Records of suite=limits to markdown: times of a step by share of the SMs, and tables about engines and clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from suites.limits import engine_tables, sharing_tables
from suites.limits.limits_advice import sentences
from suites.limits.result import ClientTimes, FailedShare, LimitedTimes, LimitsResult, percentile_ms
from suites.records.record import Record
from suites.tables.markdown import by_machine, digits, fitted, notes_cell, wrapped
from suites.tables.record_sections import record_section
from suites.tables.table import Table
from suites.text import essential

COLUMNS = ("batch", "seq", "share", "SMs", "graph", "p50 ms", "p99 ms", "seq/s", "time", "notes")

CLIENT_COLUMNS = ("client", "batch", "seq", "SMs", "alone p50 ms", "together p50 ms", "alone p99 ms",
                  "together p99 ms", "change", "seq/s", "notes")  # fmt: skip

CLIENT_TITLE = "Two clients in one process that run steps back to back, alone and together:"

STEPS = """\
The sentences below the heading of a backend say which share is enough, and how clients should share the GPU.

**A step on a share of the SMs.** A green context or MPS gives a session only some of the SMs of the GPU; nothing else
runs. The table shows how much slower a step is on fewer SMs.

- **share**: requested share of the SMs.
- **SMs**: SMs that the GPU gave, and those that it has. A GPU gives SMs in groups, so it may give more than requested.
  Empty with MPS, which does not report them.
- **graph**: whether each step replays a CUDA graph.
- **p50 ms, p99 ms**: percentiles of the host time of a step until its output is ready.
- **seq/s**: sequences per second of steps back to back.
- **time**: p50, as a multiple of that on the largest share with the same *graph*.
- **notes**: times that were not steady after the warm-up, why there is no CUDA graph, or why a share failed.

**Two clients.** Two sessions of the same engine run steps in two threads of one process. Client 1 has the smallest
shape, client 2 the largest. Both first use all SMs, then each client has its own half.

- **SMs**: of the client, from a green context; *all* without a limit. Halves are rounded down to groups of SMs, so a
  client may have less than half.
- **alone, together**: times while the other client waits, and while it runs steps too. The threads share Python's lock,
  so a step without a CUDA graph may also wait for the other thread.
- **change**: of the p99 together against the p99 alone.
- **seq/s**: sequences per second of the client while both run. Each client waits for a step before it starts the next.
- **notes**: steps without a CUDA graph."""

LEGEND = f"{STEPS}\n\n{engine_tables.LEGEND}\n\n{sharing_tables.LEGEND}"


def limits_tables(records: Iterable[Record]) -> str:
    """Return one section for each machine, with one table for each record."""
    return by_machine("Limits", LEGEND, records, _section)


def _section(records: Sequence[Record]) -> str:
    return record_section(records, _part)


def _part(record: Record) -> list[str]:
    result = record.result
    assert isinstance(result, LimitsResult)
    lines = [*(wrapped(f"- {sentence}", "  ") for sentence in sentences(result)), ""]
    lines += ["A step on a share of the SMs, alone on the GPU:", "", fitted(COLUMNS, rows_of(record, result), 4), ""]
    lines += engine_tables.engine_lines(result)
    if result.clients:
        lines += [CLIENT_TITLE, "", fitted(CLIENT_COLUMNS, client_rows(result), 4), ""]
    return [*lines, *sharing_tables.sharing_lines(result)][:-1]


def rows_of(record: Record, result: LimitsResult) -> list[list[str]]:
    """Return a row for each shape, share and CUDA graph setting, and for each share that failed."""
    rows = []
    for batch, sequence in result.shapes:
        measured = result.at(batch, sequence)
        facts = record.facts.shapes.get(f"{batch}x{sequence}")
        no_graph = f"no CUDA graph: {facts.no_cuda_graph}" if facts is not None and facts.no_cuda_graph else ""
        for times in measured:
            most = [each for each in measured if each.cuda_graph is times.cuda_graph][-1]
            rows.append(_row(times, most, no_graph))
    return [*rows, *(_failed(failure) for failure in result.failures)]


def _failed(failure: FailedShare) -> list[str]:
    note = notes_cell(f"{failure.outcome}: {essential(failure.reason)}")
    return ["all", "", f"{failure.share:.0%}", *[""] * (len(COLUMNS) - 4), note]


def _row(times: LimitedTimes, most: LimitedTimes, no_graph: str) -> list[str]:
    return [
        str(times.batch),
        str(times.sequence),
        f"{times.share:.0%}",
        _units(times.units, times.total),
        "yes" if times.cuda_graph else "no",
        digits(times.p50_ms),
        digits(times.p99_ms),
        digits(times.sequences_per_s),
        f"{times.p50_ms / most.p50_ms:.2f}x",
        notes_cell("" if times.steady else "not steady after warm-up", no_graph),
    ]


def client_rows(result: LimitsResult) -> list[list[str]]:
    """Return a row for each client, without a limit and with half of the SMs."""
    return [_client(times) for limited in (False, True) for times in result.pair(limited)]


def _client(times: ClientTimes) -> list[str]:
    alone, together = percentile_ms(times.alone, 99), times.together_p99_ms
    return [
        str(times.client),
        str(times.batch),
        str(times.sequence),
        _units(times.units, times.total) or "all",
        digits(percentile_ms(times.alone, 50)),
        digits(percentile_ms(times.together, 50)),
        digits(alone),
        digits(together),
        f"{together / alone - 1:+.0%}",
        digits(times.sequences_per_s),
        notes_cell("" if times.cuda_graph else "no CUDA graph"),
    ]


def _units(units: int, total: int) -> str:
    return f"{units} of {total}" if total else ""


TABLES = {"limits": Table("suites.limits.tables:limits_tables")}

END_TABLES = "suites.limits.limits_end_tables:limits_end_tables"
"""Function that makes the short tables at the end of a run."""
