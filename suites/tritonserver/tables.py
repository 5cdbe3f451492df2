"""Records of suite=tritonserver to markdown: a row for each load and path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from suites.records.record import Record
from suites.serving.result import SATURATED, LoadPoint
from suites.serving.tables import load_text, milliseconds, notes_of, title
from suites.tables.markdown import by_machine, digits, fitted, notes_cell, wrapped
from suites.tables.record_sections import record_section
from suites.tables.table import Table
from suites.tritonserver.result import GRPC, HTTP, IN_PROCESS, UNBATCHED, Curve, ServerTimes, TritonResult

COLUMNS = ("load", "path", "requests/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "batch", "largest", "queue ms",
           "compute ms", "requests", "rejected", "failed", "notes")  # fmt: skip

PATHS = {IN_PROCESS: "in process", GRPC: "gRPC", HTTP: "HTTP", UNBATCHED: "no batcher"}
"""Name of each path in tables, in the order of the rows of a load."""

LEGEND = """\
Latency of requests under load, in the process and through a Triton Inference Server on the same machine. Both have the
same session, the same rules of batches and the same arrivals.

- **load**: requests per second that are offered. "saturated" has so many clients that the next batch is always
  complete.
- **path**: "in process" is the session behind the batcher of the suite. gRPC and HTTP are requests to the server, which
  has its dynamic batcher. "no batcher" is the server with one request at a time, over the first of these protocols.
- **requests/s**: answers per second, until the last answer. The sentences below a table compare the highest one of each
  path.
- **p50, p90, p99, p99.9**: percentiles of the latency, from the scheduled arrival of a request to its answer in host
  memory. p99 needs 100 answers, and p99.9 needs 1,000.
- **batch, largest**: mean and largest number of requests of a batch; for the server from its statistics.
- **queue ms, compute ms**: mean time of a request before its batch starts, and of the pass of its batch; for the server
  from its statistics, without the network and the protocol.
- **requests**: number of requests that arrived.
- **rejected**: requests that found a full queue. They have no latency.
- **failed**: requests that are longer than the engine allows, and requests with an error.
- **notes**: reasons of failures, and loads that the server cannot keep up with, or with too few requests to say."""


def triton_tables(records: Iterable[Record]) -> str:
    """Return one section for each machine, with one table for each record."""
    return by_machine("Triton", LEGEND, records, _section)


def _section(records: Sequence[Record]) -> str:
    return record_section(records, _part, title)


def _part(record: Record) -> list[str]:
    result = record.result
    assert isinstance(result, TritonResult)
    table = fitted(COLUMNS, [_row(curve, number, record) for curve, number in ordered(result)], 2)
    return [table, "", *(wrapped(f"- {sentence}", "  ") for sentence in sentences(result))]


def ordered(result: TritonResult) -> list[tuple[Curve, int]]:
    """Return the points of all curves as curve and number: by load, and for each load by path."""
    order = [*PATHS]
    points = [(curve, number) for curve in result.curves for number in range(len(curve.points))]

    def place(item: tuple[Curve, int]) -> tuple[bool, float, int]:
        point = item[0].points[item[1]]
        return point.purpose != SATURATED, point.offered, order.index(item[0].path)

    return sorted(points, key=place)


def server_times(curve: Curve, number: int) -> ServerTimes | None:
    """Return the server's statistics of a point; None in the process."""
    return curve.server[number] if number < len(curve.server) else None


def sentences(result: TritonResult) -> list[str]:
    """Return cost and gain of the server in words."""
    own, found = result.curve(IN_PROCESS), []
    for path in (GRPC, HTTP):
        curve = result.curve(path)
        if own and curve:
            found += _cost(own, curve)
    batched = next((curve for path in (GRPC, HTTP) if (curve := result.curve(path))), None)
    alone = result.curve(UNBATCHED)
    if batched and alone and (slow := _capacity(alone)):
        gain = digits(_capacity(batched) / slow)
        found.append(f"The dynamic batcher of the server carries {gain} times the load of one request at a time.")
    compared = [curve for curve in result.curves if curve.compared]
    if compared:
        count, least = sum(curve.compared for curve in compared), min(curve.least_cosine or 0.0 for curve in compared)
        found.append(
            f"{count:,} answers of the server were compared with those of the session; least cosine {least:.6f}."
        )
    started = "" if result.ready_s is None else f", ready {digits(result.ready_s)} s after its start"
    return [*found, f"Triton {result.version}{started}."]


def _cost(own: Curve, curve: Curve) -> list[str]:
    """Return the cost of a path at the lowest load, and its highest throughput."""
    name, found = PATHS[curve.path], []
    by_load = {point.offered: point for point in own.points if point.answered and point.purpose != SATURATED}
    both = [(by_load[point.offered], point) for point in curve.points if point.answered and point.offered in by_load]
    if both:
        inside, outside = min(both, key=lambda pair: pair[0].offered)
        times = [digits(point.latency.p50 / 1e6) for point in (inside, outside)]
        found.append(f"p50 at {load_text(inside)} requests/s: {times[0]} ms in process, {times[1]} ms over {name}.")
    if capacity := _capacity(own):
        share = _capacity(curve) / capacity
        found.append(f"The highest throughput over {name} is {share:.0%} of that in the process.")
    return found


def _capacity(curve: Curve) -> float:
    """Return the highest throughput in requests per second.

    With many clients that all wait, a server may do worse than under a load that arrives in any case.
    """
    return max((point.achieved for point in curve.points), default=0.0)


def _row(curve: Curve, number: int, record: Record) -> list[str]:
    point, server = curve.points[number], server_times(curve, number)
    answered, failed = point.answered > 0, point.too_long + point.errors
    return [
        load_text(point),
        PATHS[curve.path],
        digits(point.achieved) if answered else "0",
        *(milliseconds(point, name) for name in ("p50", "p90", "p99", "p999")),
        *_batches(point),
        *_times(point, server),
        f"{point.sent:,}",
        f"{point.rejected:,}" if point.rejected else "",
        f"{failed:,}" if failed else "",
        notes_cell(*notes_of(point, record)),
    ]


def _batches(point: LoadPoint) -> list[str]:
    return [digits(point.mean_batch), max(point.batches, key=int)] if point.batches else ["", ""]


def _times(point: LoadPoint, server: ServerTimes | None) -> list[str]:
    """Return the mean times of queue and compute in ms."""
    if server:
        queue, compute = server.queue, server.compute
    else:
        requests = sum(int(size) * count for size, count in point.batches.items())
        batches = sum(point.batches.values())
        queue, compute = point.queue.mean, point.session_ns / batches if requests else 0.0
    return [digits(max(value, 1e3) / 1e6) if point.answered else "" for value in (queue, compute)]


TABLES = {"tritonserver": Table("suites.tritonserver.tables:triton_tables")}

END_TABLES = "suites.tritonserver.triton_end_tables:triton_end_tables"
"""Function that makes the short tables at the end of a run."""
