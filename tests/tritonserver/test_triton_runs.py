"""suite=tritonserver from the command line without a server: refusals, records that name missing programs, tables."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Cli
from markdown_rows import rows

from suites.records.record import Record
from suites.records.results_folder import read_records
from suites.serving.result import LoadPoint, Times
from suites.tritonserver.measure import _failures
from suites.tritonserver.result import GRPC, IN_PROCESS, UNBATCHED, Curve, ServerTimes, TritonResult
from suites.tritonserver.tables import sentences, triton_tables

MakeRecord = Callable[..., Record]
SMALL = "num_hidden_layers: 2, hidden_size: 64, num_attention_heads: 2, intermediate_size: 128"
WORDS = ("suite=tritonserver", "backend=torch_eager", "device=cpu", "weights=random", "batch=[1,4]", "sequence=[16]",
         "suite.seconds=0.05", "suite.warm_up_s=0.02", f"model.architecture={{model_type: bert, {SMALL}}}")  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serving.arrivals=closed"], "suite=tritonserver offers loads; serving.arrivals=closed is for suite=serving"),
        (["serving.bound_ms=[5]"], "serving.bound_ms is for suite=serving only"),
        (["serving.most_tokens=64"], "Triton's batcher has no limit of tokens"),
        (["serving.group_by_length=true"], "Triton's batcher does not group by length"),
        (["serving.graph=true"], "serving.graph=true needs serving.pad_to=built"),
        (["serving.pool=processes"], "serving.pool=processes is for suite=serving only"),
        (["tritonserver.protocols=[]"], "tritonserver.protocols=[] is empty; give grpc, http or both"),
        (["tritonserver.grpc_url=http://a:1"], "tritonserver.grpc_url=http://a:1 is not HOST:PORT"),
        (["tritonserver.grpc_url=a"], "tritonserver.grpc_url=a is not HOST:PORT, such as 127.0.0.1:8001"),
        (["tritonserver.grpc_url=a:1"], "tritonserver.grpc_url needs tritonserver.model=NAME"),
        (["tritonserver.model=m"], "tritonserver.model needs tritonserver.grpc_url or tritonserver.http_url"),
        (["tritonserver.grpc_url=a:1", "tritonserver.model=m", "tritonserver.grpc_port=5"],
         "tritonserver.grpc_port starts a server, and tritonserver.grpc_url names a running one; give one only"),
        (["tritonserver.grpc_url=a:1", "tritonserver.model=m", "tritonserver.protocols=[http]"],
         "tritonserver.grpc_url is for a protocol that tritonserver.protocols leaves out; add it"),
        (["tritonserver.http_port=70000"], "tritonserver.http_port=70000"),
        (["tritonserver.start_s=0"], "tritonserver.start_s=0.0 must be greater than 0"),
    ],
)  # fmt: skip
def test_refusals(words: list[str], message: str, fast_cli: Cli) -> None:
    done = fast_cli(*WORDS, *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_missing_server_or_client_is_unavailable(fast_cli: Cli, tmp_path: Path) -> None:
    done = fast_cli(*WORDS, "tritonserver.python=/bin/false")
    (record,) = read_records(tmp_path / "results", "tritonserver")
    assert record.outcome == "unavailable", done.stderr
    client = importlib.util.find_spec("tritonclient")
    missing = "tritonserver.python=<folder>/false has no nvidia-pytriton; pip install nvidia-pytriton"
    assert (missing if client else 'pip install "tritonclient[') in record.reason


TIMES = Times(2e6, 2e6, 3e6, 4e6, 5e6, 6e6)


def point(purpose: str, offered: float, achieved: float, **changes: object) -> LoadPoint:
    made = LoadPoint(purpose, offered, 0 if offered else 12, achieved, 2000, 2000, 0, 0, 0, 2.0, 2.0, TIMES, TIMES,
                     TIMES, {"1": 500, "3": 500}, 9, 9, 2_000_000_000, 1, 1)  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


SERVER = ServerTimes(2000, {"1": 500, "3": 500}, 3e6, 1e3, 4e6, 1e3)
SLOWER = replace(TIMES, p50=3.5e6)
RESULT = TritonResult(
    (
        Curve(IN_PROCESS, (point("saturated", 0, 1000), point("offered", 100, 99))),
        Curve(GRPC, (point("saturated", 0, 800), point("offered", 100, 99, latency=SLOWER, rejected=7)), (SERVER,) * 2,
              4000, 0, 0.99999),
        Curve(UNBATCHED, (point("saturated", 0, 200),), (SERVER,), 2000, 0, 1.0),
    ),
    "2.51.0", 3.25,
)  # fmt: skip


def test_cost_and_gain_in_words() -> None:
    assert sentences(RESULT) == [
        "p50 at 100 requests/s: 2.00 ms in process, 3.50 ms over gRPC.",
        "The highest throughput over gRPC is 80% of that in the process.",
        "The dynamic batcher of the server carries 4.00 times the load of one request at a time.",
        "6,000 answers of the server were compared with those of the session; least cosine 0.999990.",
        "Triton 2.51.0, ready 3.25 s after its start.",
    ]


def test_each_load_has_a_row_for_each_path(make_record: MakeRecord) -> None:
    record = replace(make_record(suite="tritonserver"), result=RESULT)
    text = triton_tables([record])
    listed = rows(text)
    assert [(row["load"], row["path"]) for row in listed] == [
        ("saturated", "in process"), ("saturated", "gRPC"), ("saturated", "no batcher"),
        ("100", "in process"), ("100", "gRPC"),
    ]  # fmt: skip
    assert Record.from_json({**record.to_json(), "schema": 1}).result == RESULT
    assert "p50 at 100 requests/s: 2.00 ms in process" in text
    assert "| 3.00 " in text  # wait in the queue of the server
    assert "more requests than the server can answer" in text  # some were rejected


def test_wrong_answers_and_paths_without_answers_fail_the_cell() -> None:
    silent = point("offered", 5, 0, answered=0, errors=3, first_error="a fault")
    curves = (Curve(IN_PROCESS, RESULT.curves[0].points), Curve(GRPC, (silent,)), replace(RESULT.curves[2], wrong=2))
    assert _failures(TritonResult(curves, "")) == {
        "grpc": "a fault",
        "unbatched": "2 of 2,000 answers differ from those of the session",
    }
