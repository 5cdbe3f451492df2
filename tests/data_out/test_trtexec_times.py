"""Rows from the times that trtexec exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from suites.data_out.trtexec_times import NOT_RANKED, TrtexecFile, trtexec_row
from suites.schema.refusals import Refused
from suites.statistics.stats import estimate


def entry(number: int, compute: float) -> dict[str, float]:
    """Return an inference in the format of TensorRT 8.6, 10 and 11."""
    start = 10.0 * number
    return {
        "startEnqMs": start, "endEnqMs": start + 0.25, "startH2dMs": start, "endH2dMs": start + 0.125,
        "startComputeMs": start + 1, "endComputeMs": start + 1 + compute, "startD2hMs": start + 5,
        "endD2hMs": start + 5.125, "h2dMs": 0.125, "computeMs": compute, "d2hMs": 0.125, "latencyMs": compute + 0.25,
    }  # fmt: skip


def former(number: int, compute: float) -> dict[str, float]:
    """Return an inference in the format of the first releases."""
    return {"startInMs": number, "endInMs": number + 0.1, "startComputeMs": 1, "endComputeMs": 2, "startOutMs": 2,
            "endOutMs": 3, "inMs": 0.1, "computeMs": compute, "outMs": 0.1, "latencyMs": compute + 0.2,
            "endToEndMs": compute + 1}  # fmt: skip


COMPUTE = [1 + number / 128 for number in range(200)]


def written(path: Path, content: Any) -> TrtexecFile:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return TrtexecFile(path, "mine", 8, 128)


def test_figures_are_those_of_compute(tmp_path: Path) -> None:
    row = trtexec_row(written(tmp_path / "a.json", [entry(i, c) for i, c in enumerate(COMPUTE)]))
    time = estimate([COMPUTE])
    assert (row.p50_ms, row.p50_low_ms, row.p50_high_ms) == (time.p50, time.low, time.high)
    assert row.p50_ms == pytest.approx(1 + 99.5 / 128)
    assert row.p99_ms == pytest.approx(1 + 197.01 / 128)
    assert (row.enqueue_p50_ms, row.transfers_p50_ms) == (0.25, pytest.approx(1.25 + 99.5 / 128))
    assert (row.batch, row.sequence, row.label, row.processes, row.samples) == (8, 128, "mine", 1, 200)


def test_the_row_is_marked_and_never_fastest(tmp_path: Path) -> None:
    row = trtexec_row(written(tmp_path / "a.json", [entry(0, 1e-6)]))
    assert (row.source, row.fastest, row.excluded) == ("trtexec", False, NOT_RANKED)
    assert (row.sequences_per_second, row.cosine, row.end_to_end_p50_ms, row.p99_ms) == (None, None, None, None)


def test_the_format_of_the_first_releases_is_read(tmp_path: Path) -> None:
    row = trtexec_row(written(tmp_path / "a.json", [former(i, 2.0) for i in range(3)]))
    assert (row.p50_ms, row.transfers_p50_ms, row.enqueue_p50_ms) == (2.0, 2.2, None)


def test_the_file_is_read_as_trtexec_prints_it(tmp_path: Path) -> None:
    lines = ", ".join('{ "startEnqMs" : 1.5  , "endEnqMs" : 1.75, "computeMs" : 0.5 }\n' for _ in range(3))
    row = trtexec_row(written(tmp_path / "a.json", f"[\n  {lines}]\n"))
    assert (row.p50_ms, row.enqueue_p50_ms, row.transfers_p50_ms) == (0.5, 0.25, None)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "it is not JSON"),
        ("[{", "it is not JSON"),
        ("[" * 100_000, "it is nested too deeply"),
        ({}, "it is not a JSON list"),
        ([], "the list is empty"),
        ([1], "entry 1 is not an object"),
        ([{"computeMs": 1}, {}], "entry 2 has no computeMs"),
        (
            [{"count": 5}, {"name": "mha", "averageMs": 1}],
            "entry 1 has no computeMs (this is a file of --exportProfile)",
        ),
        ([{"computeMs": "1"}], "computeMs of entry 1 is not a time in ms"),
        ([{"computeMs": True}], "computeMs of entry 1 is not a time in ms"),
        ('[{"computeMs": NaN}]', "computeMs of entry 1 is not a time in ms"),
        ('[{"computeMs": 1e999}]', "computeMs of entry 1 is not a time in ms"),
        ([{"computeMs": 0}], "computeMs of entry 1 is 0, which is not a time above 0"),
        ([{"computeMs": -1}], "computeMs of entry 1 is -1"),
        ([{"computeMs": 10**400}], "computeMs of entry 1 is not a time in ms"),
        ([{"computeMs": 1, "latencyMs": None}], "latencyMs of entry 1 is not a time in ms"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(content: Any, fault: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        trtexec_row(written(tmp_path / "a.json", content))
    reason = str(refused.value)
    assert fault in reason
    assert reason.endswith("give the file that trtexec --exportTimes=FILE wrote")
    assert "\n" not in reason
    assert len(reason) < 400


def test_a_missing_file_and_another_encoding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is not a file"):
        trtexec_row(TrtexecFile(tmp_path, "mine"))
    (tmp_path / "a.json").write_bytes('["é"]'.encode("latin-1"))
    with pytest.raises(Refused, match="not UTF-8"):
        trtexec_row(TrtexecFile(tmp_path / "a.json", "mine"))
