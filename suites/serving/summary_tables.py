"""Summary of the configurations of a workload in markdown: highest loads, the winner, and shares of the throughput."""

from __future__ import annotations

from collections.abc import Sequence

from suites.records.record import Record
from suites.serving.load_summary import Bound, Configuration, Summary, summaries
from suites.serving.other_processes import disturbed_loads
from suites.serving.result import FEWEST
from suites.tables.markdown import digits, fitted, notes_cell, wrapped
from suites.tables.models import output_text

SUMMARY_LEGEND = """\
The summary has a row for each configuration, if there are at least two. The rows of the highest loads are first.

- **strategy**: most requests of a batch, and whether tokens are packed or padded; or single requests: one at a time.
  Then the number of streams if there are several, and *graph* if batches replay CUDA graphs.
- **saturated**: requests per second with so many clients that the next batch is always complete, with the work of the
  queue between two batches.
- **load at N ms**: highest load in requests per second with 99% of the latencies within this bound, and how many times
  the highest load of single requests with the same backend and precision it is. Bold: the highest load of the table,
  and loads that differ from it by less than 5%. "none": not even the lightest load is within the bound.
- **full batches**: requests per second of one stream that runs full batches without a pause: requests / mean time of a
  full batch, over all loads. It is the throughput offline, where all requests are known, without the work of a queue.
  Empty with several streams: the time of a batch then depends on the batches that run beside it.
- **of saturated, of full batches at N ms**: the highest load as a share of these two throughputs. It can be above 100%,
  because each load is measured once, for `suite.seconds`.
- **p99 ms, batch at N ms**: p99 of the latency and mean batch at the highest load.
- **notes**: loads that other processes disturbed; the highest load may then be too low. Bounds that were not reached.

In the tables of single configurations:
"""


def summary_lines(records: Sequence[Record]) -> list[str]:
    """Return the summaries of the records of one machine and model; none if they have a single configuration."""
    found = summaries(records)
    lines: list[str] = []
    for number, summary in enumerate(found, 1):
        first = summary.configurations[0].record.cell
        heading = f"### Summary of {first.model}{output_text(first)}" + (
            f", workload {number}" if len(found) > 1 else ""
        )
        lines += ["", heading, "", _table(summary)]
        lines += ["", *(wrapped(f"- {sentence}", "  ") for sentence in (*answers(summary), *packed_or_padded(summary)))]
    return lines


def bound_text(bound: Bound) -> str:
    """Return a bound for a column: "5 ms", or with its percentile if this is not 99."""
    return f"{bound[0]:g} ms" if bound[1] == 99 else f"{bound[0]:g} ms (p{bound[1]:g})"


def answers(summary: Summary) -> list[str]:
    """Return a sentence for each bound: the configuration that carries the most."""
    return [_answer(summary, bound) for bound in summary.bounds]


def _answer(summary: Summary, bound: Bound) -> str:
    within = f"**within {bound_text(bound)}**"
    winners = summary.best(bound)
    if not winners:
        return f"{within}: no configuration carries a load."
    best, *same = winners
    text = f"{within}: {described(best)} carries the most: {digits(best.load(bound))} requests/s"
    if (single := summary.single_requests(best, bound)) and not best.single:
        text += f", {best.load(bound) / single:.1f} times the {digits(single)} of single requests"
    text += "."
    if same:
        others = "; ".join(f"{described(row)} with {digits(row.load(bound))}" for row in same)
        text += f" Loads that differ by less than 5%: {others}."
    return text


def packed_or_padded(summary: Summary) -> list[str]:
    """Return a sentence for each precision and bound that packed and padded batches were measured for."""
    sentences = []
    for precision in sorted({row.record.cell.precision for row in summary.configurations}):
        for bound in summary.bounds:
            packed, padded = (summary.best_batches(bound, precision, packs) for packs in (True, False))
            if packed and padded:
                ratio = packed.load(bound) / padded.load(bound)
                sentences.append(
                    f"**packed against padded batches, {precision} within {bound_text(bound)}**: {described(packed)} "
                    f"carries {digits(packed.load(bound))} requests/s, {ratio:.2f} times the "
                    f"{digits(padded.load(bound))} of {described(padded)}."
                )
    return sentences


def described(row: Configuration) -> str:
    """Return backend, precision and strategy in a sentence."""
    return f"{row.name} ({row.strategy}{f'; {row.options}' if row.options else ''})"


def _table(summary: Summary) -> str:
    loads = [f"load at {bound_text(bound)}" for bound in summary.bounds]
    details = [
        f"{name} at {bound_text(bound)}"
        for bound in summary.bounds
        for name in ("of saturated", "of full batches", "p99 ms", "batch")
    ]
    header = ("backend", "strategy", "saturated", *loads, "full batches", *details, "notes")
    return fitted(header, [_row(row, summary) for row in summary.configurations], 2)


def _row(row: Configuration, summary: Summary) -> list[str]:
    return [
        row.name,
        row.strategy,
        digits(row.saturated) if row.saturated else "",
        *(_load(row, summary, bound) for bound in summary.bounds),
        digits(row.full_batches) if row.full_batches else "",
        *(cell for bound in summary.bounds for cell in _details(row, bound)),
        notes_cell(row.options, *notes_of_row(row, summary)),
    ]


def _load(row: Configuration, summary: Summary, bound: Bound) -> str:
    load = row.load(bound)
    if not load:
        return "none" if row.highest(bound) else ""
    text = f"**{digits(load)}**" if row in summary.best(bound) else digits(load)
    single = summary.single_requests(row, bound)
    return f"{text} ({load / single:.1f}x)" if single and not row.single else text


def _details(row: Configuration, bound: Bound) -> list[str]:
    load, point = row.load(bound), row.point(bound)
    shares = [f"{load / whole:.0%}" if load and whole else "" for whole in (row.saturated, row.full_batches)]
    if point is None:
        return [*shares, "", ""]
    p99 = digits(point.latency.p99 / 1e6) if point.answered >= FEWEST["p99"] else ""
    return [*shares, p99, digits(point.mean_batch)]


def notes_of_row(row: Configuration, summary: Summary) -> list[str]:
    """Return the bounds that the row does not reach with its smallest latency, and the disturbance of its loads."""
    missed = [bound_text(b) for b in summary.bounds if row.highest(b) and not row.load(b)]
    shortest = row.shortest_p99_ms
    least = f", its smallest p99 is {digits(shortest)} ms" if shortest else ""
    disturbed = disturbed_loads(row.result)
    return [
        f"no load within {' or '.join(missed)}{least}" if missed else "",
        f"other processes took {disturbed}" if disturbed else "",
    ]
