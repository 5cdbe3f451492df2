"""Spread of times between processes, by machine and path.

A table row from one process has no spread between processes of its own. Tables use the spread of a study of equal
processes for such a row, from `suites/statistics/process_noise.json`. A study is a record of several processes, or a
group of records that differ only in the ranges of INT8, which do not change kernels. `python -m suites.process_noise`
writes this file from records.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from backends.json_codec import from_json
from suites.records.measurement import END_TO_END, GPU, LATENCY, Measurement
from suites.records.record import Record
from suites.statistics.stats import Estimate

FILE = Path(__file__).with_name("process_noise.json")
"""Studies of the committed records, written by suites/process_noise.py."""

LEAST = 5
"""Fewest processes of a study. With fewer, the estimate of the spread is too inaccurate."""

RANGES = ("method", "percentile", "samples", "sequence", "tokens", "qat_steps", "qat_rate")
"""Options of quantization that change ranges but not the graph or the kernels."""


@dataclass(frozen=True, order=True)
class PathKey:
    """Machine, device, backend, precision and CUDA graph setting of a computed path, and its kind of time.

    Attributes:
        machine: slug of the machine, as in records.
        device: "cpu" or "cuda".
        request: whether times are those of requests instead of steps.
    """

    machine: str
    device: str
    backend: str
    precision: str
    cuda_graph: bool
    request: bool = False


@dataclass(frozen=True, order=True)
class Study:
    """Medians of equal processes at one shape.

    Attributes:
        medians_ms: median of each process, in ms.
        records: ids of the cells that the medians come from.
    """

    path: PathKey
    batch: int
    sequence: int
    medians_ms: tuple[float, ...]
    records: tuple[str, ...]

    @property
    def tokens(self) -> int:
        return self.batch * self.sequence

    @property
    def variance(self) -> float:
        """Variance of the logarithm of the medians."""
        return float(np.var(np.log(self.medians_ms), ddof=1))


@dataclass(frozen=True)
class Noise:
    """Relative standard deviation between processes, with its degrees of freedom."""

    spread: float
    freedom: int


def studies(records: Iterable[Record]) -> list[Study]:
    """Return all studies in records, sorted."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.measurements:
            groups.setdefault(_equal_computation(record), []).append(record)
    return sorted(study for group in groups.values() for study in _of_group(group))


def noise_of(path: PathKey, tokens: int, time_ns: float = 0.0) -> Noise | None:
    """Return the noise of a path at a number of tokens (batch times sequence); None if there is no study.

    Without a CUDA graph, a GPU may wait for the host, whose speed differs much between processes. A time above all
    times of the study of its path does not contain such a wait. Its noise is that of the path's graphs, if studied.

    If this path was not studied on this machine, the noise is that of the nearest study. The order is: this machine and
    path; this machine and backend in any precision; this path on another machine of the same kind (CPU or GPU); this
    backend on such a machine; any path on this machine; any path on such a machine. If several studies match, the
    largest spread counts.
    """
    return find_noise(committed_studies(), path, tokens, time_ns)


def find_noise(available: Sequence[Study], path: PathKey, tokens: int, time_ns: float = 0.0) -> Noise | None:
    """Return the noise of a path from the given studies; see `noise_of`."""
    graphs = [s for s in available if not path.cuda_graph and s.path == replace(path, cuda_graph=True)]
    plain = [median for s in available if s.path == path for median in s.medians_ms]
    if graphs and plain and time_ns > max(plain) * 1e6:
        return _largest(graphs, tokens)

    def kind(other: PathKey) -> tuple[str, bool, bool]:
        return other.device, other.cuda_graph, other.request

    near = [s for s in available if kind(s.path) == kind(path)]
    here = [study for study in near if study.path.machine == path.machine]
    choices = (
        [s for s in here if s.path == path],
        [s for s in here if s.path.backend == path.backend],
        [s for s in near if replace(s.path, machine=path.machine) == path],
        [s for s in near if s.path.backend == path.backend],
        here,
        near,
    )
    return next((_largest(group, tokens) for group in choices if group), None)


def widened(estimate: Estimate, noise: Noise | None) -> Estimate:
    """Add the spread between processes to an estimate; unchanged without `noise`.

    For an estimate of one process the spread is also added to its standard error.
    """
    if noise is None:
        return estimate
    if estimate.processes > 1:
        return replace(estimate, spread=noise.spread, spread_freedom=noise.freedom)
    error = float(np.hypot(estimate.error, noise.spread))
    return replace(estimate, error=error, freedom=noise.freedom, spread=noise.spread)


def _largest(group: Sequence[Study], tokens: int) -> Noise:
    """Return the largest spread of all paths in `group`, each at the shape with the nearest number of tokens.

    The spread depends on the size: a small batch waits for the host, whose speed differs between processes; a large
    batch does not.
    """
    nearest: dict[PathKey, Study] = {}
    for study in group:
        nearest[study.path] = min(
            nearest.get(study.path, study),
            study,
            key=lambda candidate: (abs(math.log(candidate.tokens / tokens)), -candidate.variance),
        )
    widest = max(nearest.values(), key=lambda candidate: candidate.variance)
    return Noise(widest.variance**0.5, len(widest.medians_ms) - 1)


def _of_group(group: Sequence[Record]) -> Iterable[Study]:
    several = [record for record in group if len({m.process for m in record.measurements}) >= LEAST]
    for records in [[record] for record in several] or ([list(group)] if len(group) >= LEAST else []):
        shapes: dict[tuple[int, int, bool, bool], list[float]] = {}
        for record in records:
            requests = [m for m in record.measurements if m.phase == END_TO_END]
            for m in [*main_measurements(record.measurements), *requests]:
                key = m.batch, m.sequence, m.cuda_graph, m.phase == END_TO_END
                shapes.setdefault(key, []).append(float(np.median(m.samples)) / 1e6)
        cell, machine = records[0].cell, records[0].environment.machine
        ids = tuple(sorted(record.cell.id for record in records))
        for (batch, sequence, graph, request), medians in shapes.items():
            if len(medians) >= LEAST:
                path = PathKey(machine, cell.device, cell.backend, cell.precision, graph, request)
                yield Study(path, batch, sequence, tuple(round(median, 6) for median in medians), ids)


def main_measurements(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return the measurements of GPU time if there are any, else those of latency on the host."""
    phase = GPU if any(m.phase == GPU for m in measurements) else LATENCY
    return [m for m in measurements if m.phase == phase]


def _equal_computation(record: Record) -> str:
    """Return a key that is equal for records that run the same kernels."""
    cell = json.loads(json.dumps(record.cell.to_json()))
    for name in RANGES:
        cell["options"].get("quantization", {}).pop(name, None)
    for name in ("texts", "calibration", "seed"):
        cell["lengths"].pop(name, None)
    return json.dumps([record.environment.machine, {**cell, "model_version": ""}], sort_keys=True)


@cache
def committed_studies() -> tuple[Study, ...]:
    """Return the studies in `FILE`."""
    return from_json(tuple[Study, ...], json.loads(FILE.read_text(encoding="utf-8")), FILE.name)


def to_text(found: Iterable[Study]) -> str:
    """Return the content of the file: one study per line, so diffs are readable."""
    values = [asdict(study) for study in found]
    for value in values:
        if not value["path"]["request"]:
            del value["path"]["request"]
    return "[\n " + ",\n ".join(map(json.dumps, values)) + "\n]\n"
