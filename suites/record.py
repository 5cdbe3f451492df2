"""Measurements and records: what a cell ended in, as one JSON file that is never half written."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suites.cell import Cell
from suites.checks import Refused
from suites.record_checks import MACHINE_NAME, WORD, BadRecord, record_is_sound
from suites.text import cleaned, one_line

SCHEMA = 2
"""Version 1 has no maker and no digest; it is still read."""

LARGEST = 1 << 28
"""Bytes of a file that is read as a record."""

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR,
                errno.ENAMETOOLONG, errno.ELOOP)  # fmt: skip
"""What an OSError says when a disk is full, a folder is not to be written, or something else is in a file's place."""

OK, UNSUPPORTED, UNAVAILABLE, FAILED, TIMEOUT = "ok", "unsupported", "unavailable", "failed", "timeout"
OUTCOMES = (OK, UNSUPPORTED, UNAVAILABLE, FAILED, TIMEOUT)

TIMED = ("latency", "switching")
"""The suites whose measurement wants its device for itself; the others judge outputs."""

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
            in mJ. Also the load of the CPUs (suites/cpu_load.py).
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
        processes: of each process that measured after the first, its number (`process`), when it ended (`measured_at`)
            and its `facts`; those of the first are the record's own.
        maker: version and commit of the suite, and whether its code differed from the commit; see suites/maker.py.
        harness, scoring: versions of the timing, and of inputs and judgement; see suites/maker.py.
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
        """Whether its figures are times, which depend on the harness."""
        return self.cell.suite in TIMED

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """
        Raises:
            BadRecord: the data is of another schema, was changed after it was written, or has wrong parts.
        """
        own = _verified(data)
        record_is_sound(own)
        if unknown := set(own) - {known.name for known in dataclasses.fields(cls)}:
            raise BadRecord(f"{min(unknown)} is no part of a record")
        cell = Cell.from_json(own["cell"])
        own |= {name: tuple(own[name]) for name in ("checks", "command", "processes") if name in own}
        return cls(**{**own, "cell": cell,
                      "measurements": tuple(Measurement.from_json(m) for m in own["measurements"])})  # fmt: skip


def _verified(data: Any) -> dict[str, Any]:
    """The data without its digest."""
    if not isinstance(data, dict):
        raise BadRecord("it is not a JSON object")
    schema = data.get("schema")
    if type(schema) is not int or schema < 1:
        raise BadRecord(f"its schema is {one_line(repr(schema), 40)}; this version reads 1 to {SCHEMA}")
    if schema > SCHEMA:
        raise BadRecord(f"its schema {schema} is newer than {SCHEMA}; use the version of the suite that wrote it")
    own = {name: value for name, value in data.items() if name != "digest"}
    if schema > 1 and data.get("digest") != digest_of(own):
        raise BadRecord("its digest is not that of its content: it was changed or damaged after it was written")
    return own


def digest_of(data: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a record's data, without the digest itself."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def path_of(results: Path, machine: str, cell: Cell) -> Path:
    """
    Raises:
        ValueError: the machine or the suite is not a name that can be a folder.
    """
    if not MACHINE_NAME.fullmatch(machine) or not WORD.fullmatch(cell.suite):
        raise ValueError(f"{one_line(machine, 80)!r}, {one_line(cell.suite, 80)!r}: not names of a machine and a suite")
    return results / machine / "records" / cell.suite / f"{cell.id}.json"


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
    """Write the record where its cell and machine say; one measurement a line, so that diffs can be read.

    Raises:
        Refused: it could not be read again, so that every later report would leave it out.
        OSError: the folder cannot be written or the disk is full.
    """
    path = path_of(results, record.environment["machine"], record.cell)
    # By way of JSON, in which tuples are lists and keys are texts, as the reader will find them.
    data = json.loads(json.dumps({**dataclasses.asdict(record), "schema": SCHEMA}))
    try:
        record_is_sound(data)
    except BadRecord as error:
        raise Refused(f"the cell has no record, for it could not be read again: {error}; choose usual values") from None
    digest = digest_of(data)
    measurements = ",\n  ".join(json.dumps(m, separators=(",", ":")) for m in data.pop("measurements"))
    body = json.dumps({**data, "digest": digest}, indent=1)
    write_whole(path, f'{body[:-2]},\n "measurements": [\n  {measurements}\n ]\n}}\n')
    return path


def read_record(path: Path) -> Record:
    """The record in a file. Its texts hold nothing that a terminal obeys, but for the end of its log.

    Raises:
        BadRecord: the file is not a record that this version can use.
        OSError: the file cannot be read.
    """
    content = _content(path)
    try:
        data = json.loads(content)
        record = Record.from_json(data)
        # Without an escape JSON has no text that is not one line of ASCII.
        if content.isascii() and "\\" not in content and "\x7f" not in content:
            return record
        kept = {"digest", "log_tail"}
        return Record.from_json(_redone({name: v if name in kept else cleaned(v) for name, v in data.items()}))
    except BadRecord:
        raise
    except json.JSONDecodeError as error:
        raise BadRecord(f"it is not JSON, or cut short: {error}") from None
    except RecursionError:
        raise BadRecord("its JSON is nested too deeply") from None
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise BadRecord(f"it is not a record: {one_line(str(error), 200)}") from error


def _redone(data: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in data.items() if name != "digest"}
    return {**own, "digest": digest_of(own)}


def _content(path: Path) -> str:
    # Opening a FIFO would wait for a writer.
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
