"""Rows from the file that `trtexec --exportTimes=FILE` writes: a JSON list with one object for each inference.

TensorRT 8.5 and later write startEnqMs, endEnqMs, startH2dMs, endH2dMs, startComputeMs, endComputeMs, startD2hMs,
endD2hMs, h2dMs, computeMs, d2hMs and latencyMs; earlier releases also write endToEndMs, and the first ones write inMs
and outMs instead of h2dMs and d2hMs (samples/common/sampleReporting.cpp of TensorRT's repository). Only computeMs must
be there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from suites.data_out.data_row import TRTEXEC, DataRow
from suites.schema.refusals import Refused, decoded, first_line, is_file
from suites.statistics.stats import estimate, percentile, typical

NOT_RANKED = "measured by trtexec, so it is not ranked"

TIMES = ("computeMs", "latencyMs", "startEnqMs", "endEnqMs")
"""Fields that are read."""

LARGEST = 1 << 30
"""Largest size of a file in bytes."""

MOST_MS = 1e12
"""Times above this limit, about 30 years, are errors."""

Inference = Mapping[str, float]


@dataclass(frozen=True)
class TrtexecFile:
    """Times of trtexec and the facts that its file does not contain.

    Attributes:
        batch, sequence: shape that trtexec ran, if it is known.
    """

    path: Path
    label: str
    batch: int | None = None
    sequence: int | None = None


def trtexec_row(source: TrtexecFile) -> DataRow:
    """Return the figures of a file. They have the column `source` trtexec and never compete for the first place.

    p50_ms, p90_ms and p99_ms are those of computeMs, enqueue_p50_ms that of endEnqMs - startEnqMs, and
    transfers_p50_ms that of latencyMs. One run of trtexec is one process, so the interval of p50_ms does not cover
    differences between processes.

    Raises:
        Refused: the file cannot be read, or is not a list of times.
    """
    inferences = _read(source.path)
    compute = [inference["computeMs"] for inference in inferences]
    time = estimate([compute])
    enqueue = [one["endEnqMs"] - one["startEnqMs"] for one in inferences if {"startEnqMs", "endEnqMs"} <= one.keys()]
    latency = [one["latencyMs"] for one in inferences if "latencyMs" in one]
    return DataRow(
        source=TRTEXEC,
        label=source.label,
        suite="latency",
        device="cuda",
        batch=source.batch,
        sequence=source.sequence,
        clock="gpu",
        p50_ms=time.p50,
        p50_low_ms=time.low,
        p50_high_ms=time.high,
        p90_ms=percentile(compute, 90),
        p99_ms=percentile(compute, 99),
        enqueue_p50_ms=_complete(enqueue, inferences),
        transfers_p50_ms=_complete(latency, inferences),
        fastest=False,
        excluded=NOT_RANKED,
        outcome="ok",
        processes=time.processes,
        samples=time.count,
    )


def _complete(times: Sequence[float], inferences: Sequence[Inference]) -> float | None:
    """Return the median if every inference has the time."""
    return typical([times]) if len(times) == len(inferences) else None


def _read(path: Path) -> list[Inference]:
    name = f"--trtexec {path}"
    if not is_file(path):
        raise Refused(f"{name} is not a file; give the file that trtexec --exportTimes=FILE wrote")
    try:
        if path.stat().st_size > LARGEST:
            raise Refused(f"{name} is larger than {LARGEST >> 20} MiB; run trtexec with a shorter --duration")
        content = json.loads(decoded(name, path.read_bytes()))
    except OSError as error:
        raise Refused(f"{name} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise _bad(name, "it is nested too deeply") from None
    except ValueError as error:
        raise _bad(name, f"it is not JSON: {first_line(error)}") from None
    if not isinstance(content, list):
        raise _bad(name, "it is not a JSON list")
    if not content:
        raise _bad(name, "the list is empty")
    return [_inference(name, number, item) for number, item in enumerate(content, 1)]


def _inference(name: str, number: int, item: object) -> Inference:
    if not isinstance(item, dict):
        raise _bad(name, f"entry {number} is not an object")
    if "computeMs" not in item:
        profile = " (this is a file of --exportProfile)" if {"averageMs", "count"} & set(item) else ""
        raise _bad(name, f"entry {number} has no computeMs{profile}")
    times = {}
    for field in TIMES:
        if field in item:
            value = item[field]
            # A comparison is exact for a whole number above the largest float. It is false for NaN.
            if isinstance(value, bool) or not isinstance(value, int | float) or not -MOST_MS < value < MOST_MS:
                raise _bad(name, f"{field} of entry {number} is not a time in ms")
            times[field] = float(value)
    if times["computeMs"] <= 0:
        raise _bad(name, f"computeMs of entry {number} is {times['computeMs']:g}, which is not a time above 0")
    return times


def _bad(name: str, fault: str) -> Refused:
    return Refused(f"{name}: {fault}; give the file that trtexec --exportTimes=FILE wrote")
