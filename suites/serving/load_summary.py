"""Configurations of a workload, compared by the highest load that each one carries within a latency bound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from suites.latency.achieved import packs_tokens
from suites.records.record import OK, Record
from suites.serving.result import FEWEST, SATURATED, HighestLoad, LoadPoint, ServingResult
from suites.serving.strategy_text import single_requests, strategy
from suites.tables.distinctions import distinctions
from suites.tables.markdown import configuration
from suites.tables.models import output_text

SAME = 1.05
"""Smallest ratio of two highest loads that counts as a difference: searches of a load end at 3%."""

Bound = tuple[float, float]
"""Latency in ms, and the percentile of latencies within it."""


@dataclass(frozen=True)
class Configuration:
    """A record as a row of a summary.

    Attributes:
        options: options that tell the row from another one with the same backend, precision and strategy; often empty.
    """

    record: Record
    options: str = ""

    @property
    def name(self) -> str:
        """Backend and precision."""
        return f"{self.record.cell.backend} {self.record.cell.precision}"

    @property
    def strategy(self) -> str:
        return strategy(self.record)

    @cached_property
    def result(self) -> ServingResult:
        assert isinstance(self.record.result, ServingResult)
        return self.record.result

    @property
    def packed(self) -> bool:
        """Whether it computes batches of several requests without their padding."""
        return packs_tokens(self.record) and not self.single

    @property
    def single(self) -> bool:
        """Whether it runs one request at a time in each stream."""
        return single_requests(self.record)

    @cached_property
    def saturated(self) -> float | None:
        """Answers per second with so many clients that the next batch is always complete."""
        return next((p.achieved for p in self.result.points if p.purpose == SATURATED and p.answered), None)

    @cached_property
    def full_batches(self) -> float | None:
        """Answers per second of one stream that runs complete batches without a pause; None if it is not known.

        It is not known with several streams: the time of a batch then depends on the batches that run beside it.
        """
        options = self.record.cell.options
        most = int(options.get("most_requests", 1))
        times = self.result.service.get(str(most)) if options.get("workers", 1) == 1 else None
        return most * 1e9 / times.mean if times and times.mean else None

    def highest(self, bound: Bound) -> HighestLoad | None:
        """Return the result of the search for a bound; None if it was not searched."""
        return next((found for found in self.result.highest if (found.bound_ms, found.percentile) == bound), None)

    def load(self, bound: Bound) -> float:
        """Return the highest load within a bound; 0 if there is none."""
        found = self.highest(bound)
        return (found.load or 0.0) if found else 0.0

    def point(self, bound: Bound) -> LoadPoint | None:
        """Return the measurement of the highest load; the one with the lowest p99 if the load was served twice."""
        load = self.load(bound)
        points = [p for p in self.result.points if load and p.offered == load and p.answered]
        return min(points, key=lambda point: point.latency.p99, default=None)

    @property
    def shortest_p99_ms(self) -> float | None:
        """Smallest p99 of all offered loads in ms; None with too few answers."""
        times = [p.latency.p99 for p in self.result.points if p.offered and p.answered >= FEWEST["p99"]]
        return min(times) / 1e6 if times else None


@dataclass(frozen=True)
class Summary:
    """The configurations of one machine, model and workload, those of the highest load first.

    Attributes:
        configurations: at least two.
        bounds: all bounds that a search was for, the shortest first.
    """

    configurations: Sequence[Configuration]
    bounds: Sequence[Bound]

    def best(self, bound: Bound) -> list[Configuration]:
        """Return the configuration of the highest load, and those whose load is not different, in this order."""
        ordered = sorted((row for row in self.configurations if row.load(bound)), key=lambda row: -row.load(bound))
        return [row for row in ordered if row.load(bound) * SAME > ordered[0].load(bound)]

    def single_requests(self, row: Configuration, bound: Bound) -> float | None:
        """Return the highest load of one request at a time with the same backend and precision; None without it."""
        loads = [other.load(bound) for other in self.configurations if other.single and other.name == row.name]
        return max(loads, default=0.0) or None

    def best_batches(self, bound: Bound, precision: str, packed: bool) -> Configuration | None:
        """Return the packed or padded batches of a precision that carry the highest load; None without them."""
        rows = [
            row
            for row in self.configurations
            if row.record.cell.precision == precision and not row.single and row.packed == packed and row.load(bound)
        ]
        return max(rows, key=lambda row: row.load(bound), default=None)


def workload_of(record: Record) -> tuple[str, str, str]:
    """Return machine, model and lengths: only records with the same ones are compared."""
    lengths = {name: value for name, value in record.cell.lengths.items() if name not in ("seed", "texts")}
    return record.environment.machine, f"{record.cell.model}, {record.cell.weights}", repr(sorted(lengths.items()))


def summaries(records: Iterable[Record]) -> list[Summary]:
    """Return a summary for each workload with at least two configurations that have figures."""
    measured = [record for record in records if record.outcome == OK and isinstance(record.result, ServingResult)]
    groups = [[*members] for _, members in groupby(sorted(measured, key=_requests_of), key=_requests_of)]
    found = [_summary(group) for group in groups]
    return [summary for summary in found if len(summary.configurations) > 1]


def _requests_of(record: Record) -> tuple[str, ...]:
    """Return all that the requests of two records must have in common."""
    options = record.cell.options
    arrivals = (options.get(name) for name in ("arrivals", "burst", "trace", "input"))
    return *workload_of(record), output_text(record.cell), *map(repr, arrivals)


def _summary(records: Sequence[Record]) -> Summary:
    common = distinctions(records)
    names = [(record.cell.backend, record.cell.precision, strategy(record)) for record in records]
    rows = [
        Configuration(record, configuration(record, common.of(record)) if names.count(name) > 1 else "")
        for record, name in zip(records, names, strict=True)
    ]
    rows = [row for row in rows if row.saturated or row.result.highest]
    bounds = sorted({(found.bound_ms, found.percentile) for row in rows for found in row.result.highest})
    rows.sort(key=lambda row: [*(-row.load(bound) for bound in bounds), -(row.saturated or 0.0), row.record.cell.id])
    return Summary(rows, bounds)
