"""Measurements and records: what a cell ended in, as one JSON file that is never half written."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from suites.cell import Cell

SCHEMA = 1

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What an OSError says when a disk is full or a folder is not to be written."""

OK, UNSUPPORTED, UNAVAILABLE, FAILED, TIMEOUT = "ok", "unsupported", "unavailable", "failed", "timeout"
OUTCOMES = (OK, UNSUPPORTED, UNAVAILABLE, FAILED, TIMEOUT)

GPU, ENQUEUE, LATENCY, END_TO_END, SUSTAINED = "gpu", "enqueue", "latency", "end_to_end", "sustained"
REPLAY = "replay"
"""Phases: device time by events; host time of enqueueing on an idle device; host time of a step and its wait,
inputs resident; the same with inputs copied in and outputs out; host time a step, back to back without a mark."""


@dataclass(frozen=True)
class Measurement:
    """Raw samples of one phase at one shape, in nanoseconds; no averages.

    Attributes:
        windows: [start, end, steps] of each uninterrupted stretch of samples, on the monotonic clock in ns.
        steady: whether the warm-up before it settled before its cap.
        throttled: for each window, whether the GPU reported throttling during it; empty without a GPU.
        telemetry: what was read from the device meanwhile: clocks in MHz, power in W, temperature in
            degrees C, throttle reasons, memory in use in bytes, other processes that computed, energy per sequence
            in mJ.
    """

    phase: str
    batch: int
    sequence: int
    cuda_graph: bool
    samples: tuple[int, ...]
    windows: tuple[tuple[int, int, int], ...]
    steady: bool
    throttled: tuple[bool, ...] = ()
    telemetry: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        start_end_count = tuple((int(a), int(b), int(n)) for a, b, n in data["windows"])
        return cls(**{**data, "samples": tuple(data["samples"]), "windows": start_end_count,
                      "throttled": tuple(data["throttled"])})  # fmt: skip


@dataclass(frozen=True)
class Record:
    """How a cell ended, with all that is needed to read, doubt and repeat it.

    Attributes:
        reason: one line that says why, for every outcome but `ok`.
        checks: for each shape and CUDA graph setting, the output against the FP32 reference.
        facts: figures that are not timings: seconds to open, first steps, peak memory, token counts.
        scores: what a task says of the outputs, see suites/tasks/scoring.py.
        environment: machine, GPU or CPU, driver and versions; `environment["machine"]` is the key by which
            tables refuse to mix.
        artifacts: SHA-256, versions and seconds of what was built, by name.
        settings: how hard it was measured (seconds, caps); not part of the cell.
        stages: wall seconds by stage.
    """

    cell: Cell
    outcome: str
    reason: str
    environment: Mapping[str, Any]
    measurements: tuple[Measurement, ...] = ()
    checks: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    measured_at: str = ""
    log_tail: str = ""
    schema: int = SCHEMA

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Raises ValueError if the data is of another schema."""
        if data.get("schema") != SCHEMA:
            raise ValueError(f"record schema {data.get('schema')!r}; this version reads {SCHEMA}")
        return cls(**{**data, "cell": Cell.from_json(data["cell"]), "checks": tuple(data["checks"]),
                      "command": tuple(data["command"]),
                      "measurements": tuple(Measurement.from_json(m) for m in data["measurements"])})  # fmt: skip


def path_of(results: Path, machine: str, cell: Cell) -> Path:
    return results / "records" / machine / cell.suite / f"{cell.id}.json"


def write_whole(path: Path, text: str) -> None:
    """Write `text` to a temporary name beside `path`, then rename: readers see all of it or nothing.

    Raises:
        OSError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_record(results: Path, record: Record) -> Path:
    """Write the record where its cell and machine say; one measurement a line, so that diffs can be read."""
    path = path_of(results, record.environment["machine"], record.cell)
    data = asdict(record)
    measurements = ",\n  ".join(json.dumps(m, separators=(",", ":")) for m in data.pop("measurements"))
    body = json.dumps(data, indent=1)
    write_whole(path, f'{body[:-2]},\n "measurements": [\n  {measurements}\n ]\n}}\n')
    return path


def read_record(path: Path) -> Record:
    """Raises ValueError if the file is not a record of this schema."""
    try:
        return Record.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a record: {error}") from error


def read_records(results: Path, suite: str) -> Iterator[Record]:
    """All records of a suite under `results`, machine by machine, in the order of their paths."""
    for path in sorted((results / "records").glob(f"*/{suite}/*.json")):
        yield read_record(path)
