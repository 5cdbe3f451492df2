"""Figures of latency records: a row for each cell and shape, and the fastest rows of a shape.

All figures are numbers, computed from the raw samples. Tables, reports and exports of data format them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from suites.records.measurement import END_TO_END, ENQUEUE, GPU, LATENCY, REQUEST_PARTS, SUSTAINED, Measurement
from suites.records.parts import Check
from suites.records.record import Record
from suites.schema.enums import Rank
from suites.statistics.stats import Estimate, best_time, estimate, percentile, typical
from suites.statistics.validity import Judged, Scores, problems, way
from suites.statistics.winners import Contender, cannot_win_note, comparable_step, fastest, path_of, why_excluded

Samples = Sequence[tuple[int, ...]]
"""Samples of each process in ns."""


@dataclass(frozen=True)
class LatencyRow:
    """Figures of one cell at one shape.

    Arguments named `graph` say whether a CUDA graph is replayed. Times are in nanoseconds.

    Attributes:
        batch, sequence: sequences of a forward pass, and their length in tokens with padding.
        tasks: scores of the path by task.
        rank: the time by which the row is compared with others.
    """

    record: Record
    batch: int
    sequence: int
    tasks: Mapping[str, Scores] = field(default_factory=dict)
    rank: Rank = Rank.gpu

    @property
    def shape(self) -> tuple[int, int]:
        return self.batch, self.sequence

    @property
    def shape_name(self) -> str:
        return f"{self.batch}x{self.sequence}"

    @cached_property
    def measurements(self) -> Mapping[tuple[str, bool], Sequence[Measurement]]:
        """Measurements of the shape by phase and CUDA graph, one for each process."""
        phases: dict[tuple[str, bool], list[Measurement]] = {}
        for m in self.record.measurements:
            if m.shape == self.shape:
                phases.setdefault((m.phase, m.cuda_graph), []).append(m)
        return phases

    @property
    def phase(self) -> str:
        """The phase of `times`: GPU time by events, or host time on a CPU."""
        return GPU if (GPU, False) in self.measurements else LATENCY

    def samples(self, phase: str, graph: bool) -> Samples:
        """Return the samples of each process; empty if the phase was not measured."""
        return [m.samples for m in self.measurements.get((phase, graph), ())]

    def typical(self, phase: str, graph: bool) -> float | None:
        """Return the typical time of a phase, or None if it was not measured."""
        samples = self.samples(phase, graph)
        return typical(samples) if samples else None

    def enqueue(self, graph: bool) -> float | None:
        """Return the host time until the call returns on an idle device."""
        return self.typical(ENQUEUE, graph)

    def request(self, graph: bool) -> float | None:
        """Return the host time of a request: token ids in host memory in, answer in host memory out."""
        return self.typical(END_TO_END, graph)

    def parts(self, graph: bool) -> Mapping[str, float]:
        """Return the host time of each part of a request, by phase in the order of a request; empty without any."""
        times = {phase: self.typical(phase, graph) for phase in REQUEST_PARTS}
        return {phase: time for phase, time in times.items() if time is not None}

    @property
    def tokenize(self) -> float | None:
        """Host time of tokenizing the texts of the batch; None if it was not measured."""
        samples = self.record.artifacts.tokenization_notes.samples_ns.get(self.shape_name, ())
        return typical([samples]) if samples else None

    @property
    def best_request(self) -> tuple[bool, float] | None:
        """The lower of the request times without and with CUDA graph: whether it is with one, and the time."""
        times = {graph: time for graph in (False, True) if (time := self.request(graph)) is not None}
        return best_time(times) if times else None

    @property
    def text_request(self) -> float | None:
        """Host time of a request with texts in: of tokenization and of the best request."""
        return None if self.tokenize is None or self.best_request is None else self.tokenize + self.best_request[1]

    def percentile(self, q: float, graph: bool, phase: str = "") -> float | None:
        """Return a percentile over the samples of all processes, or None if there are too few samples.

        Args:
            phase: the phase of the samples; empty for that of `times`.
        """
        return percentile([sample for samples in self.samples(phase or self.phase, graph) for sample in samples], q)

    @cached_property
    def times(self) -> Mapping[bool, Estimate]:
        """Median time of a forward pass by CUDA graph; one of both may be missing."""
        return self._estimates(self.phase)

    @property
    def ranked_phase(self) -> str:
        """The phase of the times by which the row is compared."""
        return END_TO_END if self.rank is Rank.request else self.phase

    @cached_property
    def ranked_times(self) -> Mapping[bool, Estimate]:
        """The times by which the row is compared, by CUDA graph: those of steps or of requests; empty without any."""
        return self.times if self.ranked_phase == self.phase else self._estimates(self.ranked_phase)

    def _estimates(self, phase: str) -> Mapping[bool, Estimate]:
        by_graph = {graph: self.samples(phase, graph) for graph in (False, True)}
        return {graph: estimate(samples) for graph, samples in by_graph.items() if samples}

    @property
    def graph(self) -> bool:
        """Whether the best time is that of a CUDA graph."""
        return best_time(self.ranked_times)[0]

    @property
    def best(self) -> Estimate:
        """The lower of the times without and with CUDA graph, by the row's rank."""
        return best_time(self.ranked_times)[1]

    @property
    def pace(self) -> float:
        """The lower of the times of a pass without and with CUDA graph, where passes run back to back."""
        sustained = {graph: self.pace_of(graph) for graph in (False, True)}
        return best_time({graph: time for graph, time in sustained.items() if time is not None})[1]

    def pace_of(self, graph: bool) -> float | None:
        """Return the time of a pass where passes run back to back, or None if it was not measured."""
        return self.typical(SUSTAINED if self.phase == GPU else self.phase, graph)

    @property
    def tokens(self) -> int:
        """Tokens of a forward pass without padding."""
        return self.record.artifacts.input_notes.shapes[self.shape_name].tokens

    @property
    def sequences_per_second(self) -> float:
        return self.batch / self.pace * 1e9

    @property
    def tokens_per_second(self) -> float:
        """Throughput of passes back to back. Padding does not count."""
        return self.tokens / self.pace * 1e9

    @property
    def nonfinite(self) -> bool:
        """Whether an output is NaN or infinite."""
        return any(check.nonfinite for check in self._checks)

    @property
    def cosine(self) -> float | None:
        """Smallest cosine to the FP32 reference; None if it was not compared or is not finite."""
        cosines = [check.cosine for check in self._checks if check.cosine is not None]
        return None if self.nonfinite else min(cosines, default=None)

    @property
    def _checks(self) -> list[Check]:
        return [check for check in self.record.checks if check.shape == self.shape]

    @property
    def peak_bytes(self) -> int | None:
        """Largest memory until the end of the shape: device memory, or resident memory on a CPU."""
        telemetry = [m.telemetry for several in self.measurements.values() for m in several]
        on_device = [int(read.memory_bytes) for read in telemetry if read.memory_bytes is not None]
        return max(on_device) if on_device else self.record.facts.of_shape(self.shape_name).peak_host_bytes

    @property
    def energy_mj(self) -> float | None:
        """Energy of a sequence in mJ with a CUDA graph, which is lower, or else that of plain passes."""
        with_graph = self.energy_of(True)
        return self.energy_of(False) if with_graph is None else with_graph

    def energy_of(self, graph: bool) -> float | None:
        """Return the mean energy of a sequence in mJ over processes, or None if it was not measured."""
        readings = [m.telemetry.energy_mj_per_sequence for m in self.measurements.get((SUSTAINED, graph), ())]
        energies = [energy for energy in readings if energy is not None]
        return sum(energies) / len(energies) if energies else None

    @property
    def threads(self) -> int | None:
        """Largest number of CPU threads that a measurement used; None on a GPU, or if it is not known."""
        used = [m.telemetry.threads_used for several in self.measurements.values() for m in several]
        return (max(used, default=0) or None) if self.record.cell.device == "cpu" else None

    @cached_property
    def problems(self) -> Sequence[str]:
        """The reasons why the row is invalid; empty if it is valid."""
        return problems(self.record, {self.shape}, self.tasks)

    @cached_property
    def contender(self) -> Contender:
        """The best time with the spread between processes, and the reason why the row cannot win."""
        request = self.rank is Rank.request
        path = path_of(self.record, self.graph, request)
        time = comparable_step(self.record, self.best, path, self.batch * self.sequence)
        phases = dict.fromkeys((self.phase, self.ranked_phase))
        measured = [m for phase in phases for m in self.measurements.get((phase, self.graph), ())]
        return Contender(time, "; ".join(why_excluded(measured, request or self.record.cell.device == "cpu")))


@dataclass(frozen=True)
class Verdict:
    """Place of a row among the rows of its shape.

    Attributes:
        winners: number of rows that share the first place; 0 if this row is not one of them.
        cannot_win: note about a disturbance that excludes the row; empty if there was none.
    """

    winners: int = 0
    cannot_win: str = ""


def latency_rows(records: Iterable[Record], scores: Judged, rank: Rank = Rank.gpu) -> list[LatencyRow]:
    """Return a row for each shape of each record with a time of this rank.

    Args:
        scores: those of `validity.judged`.
    """
    rows = []
    for record in records:
        phases = (END_TO_END,) if rank is Rank.request else (GPU, LATENCY)
        measured = {m.shape for m in record.measurements if m.phase in phases}
        tasks = scores.get(way(record), {})
        rows += [LatencyRow(record, *shape, tasks, rank) for shape in record.cell.shapes if shape in measured]
    return rows


def verdicts(rows: Sequence[LatencyRow]) -> list[Verdict]:
    """Return the verdict of each row. All rows have the same shape; invalid rows never win."""
    contenders = [row.contender for row in rows if not row.problems]
    won = iter(fastest(contenders))
    wins = [not row.problems and next(won) for row in rows]
    lowest = min((contender.time.p50 for contender in contenders), default=0.0)
    return [
        Verdict(sum(wins) if win else 0, "" if row.problems else cannot_win_note(row.contender, lowest))
        for row, win in zip(rows, wins, strict=True)
    ]
