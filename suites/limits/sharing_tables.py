"""Table of suite=limits about two clients with loads: one that needs a short latency and one that needs throughput."""

from __future__ import annotations

from suites.limits.result import ALONE, LimitsResult, LoadTimes
from suites.tables.markdown import digits, fitted, notes_cell
from suites.text import essential

COLUMNS = ("sharing", "SMs of client 1", "p50 ms", "p99 ms", "p99 / alone", "seq/s", "seq/s / alone", "notes")

LEGEND = """\
**Two clients with loads.** Client 1 needs a short latency: it sends single requests of the smallest shape. Client 2
needs throughput: it runs steps of the largest shape back to back. A good row has a short p99 and a high seq/s.

- **sharing**: *alone*: one client runs while the other one waits. *time slices*: two processes without limits; the GPU
  switches between them. *MPS*: two processes under one daemon, with `CUDA_MPS_ACTIVE_THREAD_PERCENTAGE` in each if
  there is a limit. *green contexts*: two threads of one process.
- **SMs of client 1**: share of the SMs that client 1 has, with their number if it is known. Client 2 has the rest.
  *all*: no limit. Empty if this kind of sharing was not possible at all; some old records have no share of a failure.
- **p50 ms, p99 ms**: latency of client 1, from the arrival of a request to its answer in host memory.
- **p99 / alone**: p99 of client 1, divided by its p99 while client 2 waits.
- **seq/s**: throughput of client 2 while client 1 runs, in sequences per second.
- **seq/s / alone**: throughput of client 2, divided by its throughput while client 1 waits.
- **notes**: rejected requests, or why there are no times. The record has the whole message of an error."""


def sharing_lines(result: LimitsResult) -> list[str]:
    """Return the lines of the table; none without two clients with loads."""
    title = "Two clients with loads: latency of client 1, throughput of client 2:"
    return [title, "", fitted(COLUMNS, sharing_rows(result), 2), ""] if result.loads else []


def sharing_rows(result: LimitsResult) -> list[list[str]]:
    """Return a row for each kind of sharing, first for each client alone."""
    alone = next((times for times in result.loads if times.sharing == ALONE), None)
    return [_row(times, alone) for times in result.loads]


def _row(times: LoadTimes, alone: LoadTimes | None) -> list[str]:
    if alone is None or not times.latency:
        share = _share(times) if times.share else ""
        note = notes_cell(f"{times.outcome}: {essential(times.reason)}")
        return [times.sharing, share, *[""] * (len(COLUMNS) - 3), note]
    rejected = f"{times.rejected} requests found a full queue; lower limits.rate" if times.rejected else ""
    return [
        times.sharing,
        _share(times),
        digits(times.p50_ms),
        digits(times.p99_ms),
        f"{times.p99_ms / alone.p99_ms:.2f}x",
        digits(times.sequences_per_s),
        f"{times.sequences_per_s / alone.sequences_per_s:.0%}",
        notes_cell(rejected),
    ]


def _share(times: LoadTimes) -> str:
    units = f" ({times.units} of {times.total})" if times.total else ""
    return f"{times.share:.0%}{units}" if 0 < times.share < 1 else "all"
