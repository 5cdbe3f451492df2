"""A row of exported data: its columns with their types, units and help, and the columns as a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from suites.text import one_line

Value = str | bool | int | float | None
"""Value of a column; None if the row has none."""

SUITE, TRTEXEC = "suite", "trtexec"
"""Values of the column `source`: programs that measured."""


def _text(text: str) -> Any:
    return field(default="", metadata={"help": text, "type": str})


def _number(text: str) -> Any:
    return field(default=None, metadata={"help": text, "type": float})


def _count(text: str) -> Any:
    return field(default=None, metadata={"help": text, "type": int})


def _flag(text: str) -> Any:
    return field(default=None, metadata={"help": text, "type": bool})


@dataclass(frozen=True, kw_only=True)
class DataRow:
    """Figures of one cell at one shape, with or without CUDA graph, or the scores of one cell in one task.

    Every column has a value of its type. Texts are one line without control characters, and empty if there is none.
    Other values are None if the row has none, or if a number is not finite. The unit of a number is the end of its
    name: ms, mb (1,000,000 bytes), mj (millijoules).
    """

    source: str = _text("Program that measured: suite or trtexec.")
    label: str = _text("Name that --label gave to imported times.")
    suite: str = _text("Suite of the cell: latency or accuracy.")
    machine: str = _text("Name of the machine and of its folder in the results.")
    gpu: str = _text("Model of the GPU; empty for a cell on the CPU.")
    cpu: str = _text("Model of the CPU, if it is known.")
    driver: str = _text("Version of the GPU driver.")
    device: str = _text("Device of the cell: cuda or cpu.")
    device_uuid: str = _text("Identity of the GPU or host. Times of two devices of one model may differ.")
    model: str = _text("Name of the model.")
    weights: str = _text("trained, or random with the seed.")
    model_version: str = _text("Identity of the checkpoint.")
    backend: str = _text("Backend.")
    release: str = _text("Library and version of the backend.")
    precision: str = _text("Precision.")
    options: str = _text("Other options of the cell, as JSON with sorted keys.")
    lengths: str = _text("Distribution of lengths, kind of tokens and digests of texts, as JSON with sorted keys.")
    batch: int | None = _count("Sequences of a batch. Empty in rows of the accuracy suite, which mixes shapes.")
    sequence: int | None = _count("Length in tokens, with padding.")
    tokens: int | None = _count("Tokens of a batch without padding.")
    cuda_graph: bool | None = _flag("Whether a CUDA graph was replayed.")
    clock: str = _text("Clock of the times: gpu (GPU events), or host (host time of a pass until it is done).")
    p50_ms: float | None = _number("Median time of a forward pass: geometric mean of the medians of the processes.")
    p50_low_ms: float | None = _number("Lower end of the 95% interval of p50_ms.")
    p50_high_ms: float | None = _number(
        "Upper end. With one process the interval does not cover differences between processes."
    )
    p90_ms: float | None = _number("90th percentile of all samples; needs 20 samples.")
    p99_ms: float | None = _number("99th percentile of all samples; needs 200 samples.")
    enqueue_p50_ms: float | None = _number("Host time until the call returns on an idle device.")
    end_to_end_p50_ms: float | None = _number("Request time: token ids in host memory in, answer in host memory out.")
    request_packing_p50_ms: float | None = _number(
        "Part of a request: arranging and packing the inputs. Waits separate the parts, so they add up to more."
    )
    request_copy_in_p50_ms: float | None = _number("Part of a request: inputs to the device.")
    request_enqueue_p50_ms: float | None = _number("Part of a request: step until its call returns; empty on a CPU.")
    request_compute_p50_ms: float | None = _number("Part of a request: from then until the step is done.")
    request_copy_out_p50_ms: float | None = _number("Part of a request: answer to host memory.")
    tokenize_p50_ms: float | None = _number("Host time to make the token ids of a batch from texts.")
    transfers_p50_ms: float | None = _number(
        "trtexec only: sum of copies to the GPU, compute, and copies from the GPU."
    )
    sequences_per_second: float | None = _number("Throughput of passes that run back to back.")
    tokens_per_second: float | None = _number("The same in tokens; padding does not count.")
    tflops: float | None = _number(
        "Operations per second of passes that run back to back, in 1e12: TFLOP/s, for INT8 TOP/s."
    )
    ceiling_percent: float | None = _number(
        "Share of the fastest product of that precision in the machine's records of suite=ceilings."
    )
    cosine: float | None = _number("Smallest cosine of the outputs to those of PyTorch in FP32.")
    peak_mb: float | None = _number("Largest memory until the end of the shape: device memory, or resident on a CPU.")
    energy_mj_per_sequence: float | None = _number("Energy of one sequence, where the GPU reports energy.")
    rank: str = _text("Time by which rows are compared for the column fastest: gpu (p50_ms) or request.")
    fastest: bool | None = _flag("Whether the row is fastest, or ties with the fastest, at its shape.")
    excluded: str = _text("Reason why the row is invalid or cannot be fastest; empty if there is none.")
    task: str = _text("Task of the accuracy suite.")
    metric: str = _text("Metric of the task.")
    score: float | None = _number("Value of the metric.")
    reference_score: float | None = _number("The same metric for PyTorch in FP32 on the same texts.")
    difference: float | None = _number("score minus reference_score.")
    difference_low: float | None = _number("Lower end of the 95% interval of difference.")
    difference_high: float | None = _number("Upper end of the 95% interval of difference.")
    verdict: str = _text("Conclusion that the interval supports.")
    score_tolerance: float | None = _number("Largest loss of the metric that keeps a path valid.")
    outcome: str = _text("Outcome of the cell: ok, unsupported, unavailable, failed, timeout.")
    reason: str = _text("Reason of an outcome other than ok.")
    processes: int | None = _count("Fresh processes that measured.")
    samples: int | None = _count("Samples of p50_ms in all processes.")
    cell: str = _text("Id of the cell, which is the file name of its record.")
    command: str = _text("Command that measured the cell.")
    measured_at: str = _text("Time of the measurement, ISO 8601 in UTC.")
    suite_version: str = _text("Version of this suite that measured.")
    commit: str = _text("Commit of this suite that measured.")
    uncommitted: bool | None = _flag("Whether the code of the suite differed from the commit.")
    harness: int | None = _count("Version of the timing. Times of two versions may differ.")
    scoring: int | None = _count("Version of inputs and scores.")

    def __post_init__(self) -> None:
        for column in COLUMNS:
            object.__setattr__(self, column.name, _clean(column.type, getattr(self, column.name)))

    def values(self) -> tuple[Value, ...]:
        """Return the values in the order of `COLUMNS`."""
        return tuple(getattr(self, column.name) for column in COLUMNS)

    def to_json(self) -> Mapping[str, Value]:
        """Return the values by column."""
        return {column.name: getattr(self, column.name) for column in COLUMNS}


@dataclass(frozen=True)
class Column:
    """A column of exported data.

    Attributes:
        type: str, bool, int or float.
        help: one sentence about its content.
    """

    name: str
    type: type[str] | type[bool] | type[int] | type[float]
    help: str


COLUMNS = tuple(Column(item.name, item.metadata["type"], item.metadata["help"]) for item in fields(DataRow))
"""All columns, in the order of the exported files."""


def _clean(kind: Callable[[Any], Value], value: Value) -> Value:
    """Return a value of a column's type. A number that is not finite is None; a text has no control characters."""
    if kind is str:
        return one_line("" if value is None else str(value), LONGEST_TEXT)
    if value is None or (isinstance(value, float) and not -FINITE < value < FINITE):
        return None
    return kind(value)


FINITE = float("inf")

LONGEST_TEXT = 100_000
"""Longest text in characters. Options may contain long lists of names, which must stay JSON."""
