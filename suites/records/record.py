"""Measurements and records. A record is the result of a cell in one JSON file, which is written atomically."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.atomic_file import write_atomically
from suites.records.cell import Cell
from suites.records.record_checks import MACHINE_NAME, WORD, BadRecord, record_is_sound
from suites.schema.refusals import Refused
from suites.suite import is_timed
from suites.text import one_line, sanitized

SCHEMA = 2
"""Version of the layout of records. Version 1 has no `maker` and no `digest`; it can still be read."""

LARGEST = 1 << 28
"""Largest size in bytes of a file that is read as a record."""

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR,
                errno.ENAMETOOLONG, errno.ELOOP)  # fmt: skip
"""Errors of a full disk, of a folder that cannot be written, and of a path that is already used by something else."""

OK, UNSUPPORTED, UNAVAILABLE, FAILED, TIMEOUT = "ok", "unsupported", "unavailable", "failed", "timeout"
OUTCOMES = (OK, UNSUPPORTED, UNAVAILABLE, FAILED, TIMEOUT)

GPU, ENQUEUE, LATENCY, END_TO_END, SUSTAINED = "gpu", "enqueue", "latency", "end_to_end", "sustained"
REPLAY = "replay"
"""Phases of a measurement:

- `gpu`: device time of a step, by events;
- `enqueue`: host time of enqueueing a step on an idle device;
- `latency`: host time of a step until it is done, with the inputs on the device;
- `end_to_end`: host time of copying inputs in, a step, and copying outputs out;
- `sustained`: host time per step, back to back without events between the steps;
- `replay`: host time of a request in a trace of suite=switching.
"""


@dataclass(frozen=True)
class Measurement:
    """Raw samples of one phase at one shape, in nanoseconds; no averages.

    Attributes:
        windows: (start, end, steps) of each uninterrupted series of samples. Start and end are in ns on the monotonic
            clock.
        steady: whether the warm-up became steady before its time limit.
        throttled: for each window, whether the GPU reported throttling during it; empty without a GPU.
        telemetry: readings of the device during the windows: clocks in MHz, power in W, temperature in degrees C,
            throttle reasons, memory in use in bytes, number of other processes on the device, energy per sequence in
            mJ. Also the CPU load (suites/measuring/cpu_load.py).
        process: number of the fresh process that measured, from 0.
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
    process: int = 0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        start_end_count = tuple((int(a), int(b), int(n)) for a, b, n in data["windows"])
        return cls(**{**data, "samples": tuple(data["samples"]), "windows": start_end_count,
                      "throttled": tuple(data.get("throttled", ()))})  # fmt: skip


@dataclass(frozen=True)
class Record:
    """Result of a cell, with all facts that are needed to read, check and repeat it.

    Attributes:
        outcome: one of `OUTCOMES`.
        reason: the reason for an outcome other than `ok`, in one line.
        checks: comparison of the output with the FP32 reference, for each shape and CUDA graph setting.
        facts: figures that are not samples: time to open a session, first steps, peak memory, token counts.
        scores: scores of the outputs by a task, see suites/tasks/scoring.py.
        environment: machine, GPU or CPU, driver and versions. A table never mixes records with different
            `environment["machine"]`.
        artifacts: SHA-256, versions and build seconds of each artifact, by name.
        settings: duration and sample limits of the measurement; not part of the cell.
        stages: wall seconds by stage.
        processes: one entry for each process that measured after the first: its number (`process`), its end
            (`measured_at`) and its `facts`. Those of the first process are in the record's own fields.
        maker: version and commit of the suite, and whether its code differed from the commit; see
            suites/records/suite_version.py.
        harness, scoring: versions of the timing, and of inputs and scoring; see suites/records/suite_version.py.
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
    processes: tuple[Mapping[str, Any], ...] = ()
    log_tail: str = ""
    maker: Mapping[str, Any] = field(default_factory=dict)
    harness: int = 1
    scoring: int = 1
    schema: int = SCHEMA

    @property
    def timed(self) -> bool:
        """Whether its figures are times. These depend on `harness`."""
        return is_timed(self.cell.suite)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Return the record in parsed JSON data.

        Raises:
            BadRecord: the data has an unknown schema, was changed after it was written, or has an invalid field.
        """
        content = _verified(data)
        record_is_sound(content)
        if unknown := set(content) - {item.name for item in dataclasses.fields(cls)}:
            raise BadRecord(f"{min(unknown)} is not a field of a record")
        cell = Cell.from_json(content["cell"])
        content |= {name: tuple(content[name]) for name in ("checks", "command", "processes") if name in content}
        return cls(**{**content, "cell": cell,
                      "measurements": tuple(Measurement.from_json(m) for m in content["measurements"])})  # fmt: skip


def _verified(data: Any) -> dict[str, Any]:
    """Check the schema and the digest. Return the data without the digest."""
    if not isinstance(data, dict):
        raise BadRecord("it is not a JSON object")
    schema = data.get("schema")
    if type(schema) is not int or schema < 1:
        raise BadRecord(f"its schema is {one_line(repr(schema), 40)}; this version reads 1 to {SCHEMA}")
    if schema > SCHEMA:
        raise BadRecord(f"its schema {schema} is newer than {SCHEMA}; use the version of the suite that wrote it")
    content = {name: value for name, value in data.items() if name != "digest"}
    if schema > 1 and data.get("digest") != digest_of(content):
        raise BadRecord("its digest does not match its content: it was changed or damaged after it was written")
    return content


def digest_of(data: Mapping[str, Any]) -> str:
    """Return "sha256:" and the SHA-256 of the canonical JSON of a record's data. The data must not have the digest."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def record_path(results: Path, machine: str, cell: Cell) -> Path:
    """Return the path of the record of a cell.

    Raises:
        ValueError: the machine or the suite is not a valid folder name.
    """
    if not MACHINE_NAME.fullmatch(machine) or not WORD.fullmatch(cell.suite):
        raise ValueError(f"{one_line(machine, 80)!r}, {one_line(cell.suite, 80)!r}: not names of a machine and a suite")
    return results / machine / "records" / cell.suite / f"{cell.id}.json"


def write_record(results: Path, record: Record) -> Path:
    """Write the record to the path of its machine and cell. Each measurement is one line, so diffs are readable.

    Raises:
        Refused: the record could not be read again, so every later report would skip it.
        OSError: the folder cannot be written or the disk is full.
    """
    path = record_path(results, record.environment["machine"], record.cell)
    # A round trip through JSON gives the data that a reader gets: tuples become lists, keys become strings.
    data = json.loads(json.dumps({**dataclasses.asdict(record), "schema": SCHEMA}))
    try:
        record_is_sound(data)
    except BadRecord as error:
        raise Refused(
            f"the record was not written, because it could not be read again: {error}; choose usual values"
        ) from None
    digest = digest_of(data)
    measurements = ",\n  ".join(json.dumps(m, separators=(",", ":")) for m in data.pop("measurements"))
    body = json.dumps({**data, "digest": digest}, indent=1)
    write_atomically(path, f'{body[:-2]},\n "measurements": [\n  {measurements}\n ]\n}}\n')
    return path


def read_record(path: Path) -> Record:
    """Read the record in a file. Control characters in its texts are replaced, except in `log_tail`.

    Raises:
        BadRecord: the file is not a record that this version can use.
        OSError: the file cannot be read.
    """
    content = _content(path)
    try:
        data = json.loads(content)
        record = Record.from_json(data)
        # ASCII JSON without a backslash has no control characters, so nothing needs to be replaced.
        if content.isascii() and "\\" not in content and "\x7f" not in content:
            return record
        unchanged = {"digest", "log_tail"}
        return Record.from_json(
            _with_new_digest({name: value if name in unchanged else sanitized(value) for name, value in data.items()})
        )
    except BadRecord:
        raise
    except json.JSONDecodeError as error:
        raise BadRecord(f"it is not JSON, or it is truncated: {error}") from None
    except RecursionError:
        raise BadRecord("its JSON is nested too deeply") from None
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise BadRecord(f"it is not a record: {one_line(str(error), 200)}") from error


def _with_new_digest(data: dict[str, Any]) -> dict[str, Any]:
    content = {name: value for name, value in data.items() if name != "digest"}
    return {**content, "digest": digest_of(content)}


def _content(path: Path) -> str:
    # O_NONBLOCK, because opening a FIFO would otherwise wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise BadRecord("it is not a regular file")
    with os.fdopen(descriptor, "rb") as stream:
        if status.st_size > LARGEST:
            raise BadRecord(f"it is larger than {LARGEST >> 20} MiB")
        content = stream.read()
    if not content.strip():
        raise BadRecord("it is empty")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRecord("it is not UTF-8") from None
