"""Records. A record is the result of a cell in one JSON file, which is written atomically."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from backends.atomic_file import write_atomically
from backends.json_codec import NotThisType, from_json, to_object
from backends.json_part import Part
from suites.records.artifacts import Artifacts
from suites.records.cell import Cell
from suites.records.facts import Facts
from suites.records.measurement import Measurement
from suites.records.migrations import migrated
from suites.records.parts import Check, Environment, Maker, Process, Settings
from suites.records.record_checks import record_is_sound
from suites.records.search_result import SearchResult
from suites.records.value_types import MACHINE_NAME, WORD, BadRecord
from suites.schema.refusals import Refused
from suites.suite import Result, is_timed, load_suite, suite_names
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


@dataclass(frozen=True)
class Record(Part):
    """Result of a cell, with all facts that are needed to read, check and repeat it.

    Attributes:
        outcome: one of `OUTCOMES`.
        reason: the reason for an outcome other than `ok`, in one line.
        checks: comparison of the output with the FP32 reference, for each shape and CUDA graph setting.
        facts: figures of the first process that are not samples.
        result: result of the suite, see the file result.py of each suite ("scores" in JSON); None without one.
        environment: machine, GPU or CPU, driver and versions.
        artifacts: digests, versions, seconds and notes of the files that the cell made.
        settings: duration and sample limits of the measurement; not part of the cell.
        stages: wall seconds by stage.
        processes: the processes that measured after the first. The facts of the first are the record's own.
        maker: version of the suite; None for a record of an early version.
        harness, scoring: versions of the timing, and of inputs and scoring; see suites/records/suite_version.py.
        schema: version of the layout that the record was written in.
    """

    json_names: ClassVar[Mapping[str, str]] = {"result": "scores"}

    cell: Cell
    outcome: str
    reason: str
    environment: Environment
    measurements: tuple[Measurement, ...] = ()
    checks: tuple[Check, ...] = ()
    facts: Facts = field(default_factory=Facts)
    result: Result | None = None
    artifacts: Artifacts = field(default_factory=Artifacts)
    settings: Settings = field(default_factory=Settings)
    stages: Mapping[str, float] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    measured_at: str = ""
    processes: tuple[Process, ...] = ()
    log_tail: str = ""
    maker: Maker | None = None
    harness: int = 1
    scoring: int = 1
    schema: int = SCHEMA

    @property
    def timed(self) -> bool:
        """Whether its figures are times. These depend on `harness`."""
        return is_timed(self.cell.suite)

    @classmethod
    def json_types(cls, data: Mapping[str, object]) -> Mapping[str, object]:
        cell = data["cell"]
        suite = str(cell.get("suite")) if isinstance(cell, Mapping) else ""
        return {"result": result_type(suite) | None}

    @classmethod
    def from_layout(cls, data: Mapping[str, object]) -> Mapping[str, object]:
        return {**data, **{name: data.get(name) or None for name in ("scores", "maker")}}

    def to_layout(self, data: dict[str, object]) -> dict[str, object]:
        return {**data, **{name: data[name] or {} for name in ("scores", "maker")}}

    @classmethod
    def from_json(cls, data: object) -> Record:
        """Return the record in parsed JSON data.

        Raises:
            BadRecord: the data has an unknown schema, was changed after it was written, or has an invalid field.
        """
        content = _verified(data)
        record_is_sound(content)
        try:
            record = from_json(cls, migrated(content, SCHEMA), "record")
        except NotThisType as error:
            raise BadRecord(str(error).removeprefix("record.")) from None
        return replace(record, schema=int(str(content["schema"])))

    def to_json(self) -> dict[str, object]:
        """Return the JSON object of the record, in the current layout and without a digest."""
        return to_object(replace(self, schema=SCHEMA))


def result_type(suite: str) -> type[Result]:
    """Return the dataclass of a suite's result. The result of a suite that is not installed has unknown fields only."""
    if suite == "search":
        return SearchResult
    return load_suite(suite).result if suite in suite_names() else Result


def _verified(data: object) -> dict[str, object]:
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


def digest_of(data: Mapping[str, object]) -> str:
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
    path = record_path(results, record.environment.machine, record.cell)
    data = record.to_json()
    try:
        record_is_sound(data)
    except BadRecord as error:
        raise Refused(
            f"the record was not written, because it could not be read again: {error}; choose usual values"
        ) from None
    digest = digest_of(data)
    measurements = ",\n  ".join(json.dumps(to_object(m), separators=(",", ":")) for m in record.measurements)
    del data["measurements"]
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


def _with_new_digest(data: Mapping[str, object]) -> dict[str, object]:
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
