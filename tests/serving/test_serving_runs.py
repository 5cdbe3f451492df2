"""suite=serving from the command line: records, tables, refusals, and traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli, json_of, table_in
from markdown_rows import rows
from serving_records import point, served
from word_models import word_model

from backends.inputs.request_tokenizer import RequestTokenizer, stored_tokenizer
from backends.json_codec import from_json
from backends.model.tokenizer import fast_tokenizer
from suites.measuring.clock import HostClock
from suites.records.record import BadRecord, Record
from suites.records.results_folder import read_records
from suites.running.telemetry import GpuReadings, Reading
from suites.schema.refusals import Refused
from suites.serving import generator_limit
from suites.serving.arrivals import Arrived
from suites.serving.generator_limit import main
from suites.serving.process_runner import process_runner, serve_batches
from suites.serving.request_texts import RequestTexts
from suites.serving.result import ServingResult, observed
from suites.serving.tables import serving_tables
from suites.serving.trace_file import read_arrivals
from suites.serving.workers import Finished

MakeRecord = Callable[..., Record]
WORDS = ("suite=serving", "backend=null", "null.step_ms=0.1", "batch=[1,4]", "sequence=[64]", "lengths=stsb",
         "suite.seconds=0.05", "suite.warm_up_s=0.02")  # fmt: skip


def result_of(folder: Path) -> ServingResult:
    (record,) = read_records(folder / "results", "serving")
    assert isinstance(record.result, ServingResult)
    return record.result


def test_a_run_writes_a_record_and_tables(fast_cli: Cli, tmp_path: Path) -> None:
    done = fast_cli(*WORDS, "serving.bound_ms=[500,1000]", "serving.steps=2")
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "serving")
    assert record.cell.options["most_requests"] == 4
    assert [check.problem for check in record.checks] == [""]
    assert Record.from_json({**json_of(record), "schema": 1}).result == record.result
    listed = rows(table_in(tmp_path / "results", "serving").read_text())
    assert listed[0]["load"] == "saturated"
    assert len(listed) == len(result_of(tmp_path).points) >= 9
    assert [highest.bound_ms for highest in result_of(tmp_path).highest] == [500, 1000]
    assert "Highest load with 99% of latencies within 1000 ms" in done.stdout
    again = fast_cli(*WORDS, "serving.bound_ms=[500,1000]", "serving.steps=2")
    assert "rerun=true measures again" in again.stderr


def test_an_impossible_bound_is_said(fast_cli: Cli, tmp_path: Path) -> None:
    done = fast_cli(*WORDS, "serving.bound_ms=[0.01]", "serving.loads=[100]")
    assert done.returncode == 0, done.stderr
    said = "No load has 99% of latencies within 0.01 ms: fewer are at"
    assert said in done.stdout
    table = table_in(tmp_path / "results", "serving").read_text()
    assert f"- {said}" in table
    assert "A load of the search had fewer than 100 requests; raise suite.seconds." in table


@pytest.mark.parametrize("arrivals", ["bursts", "closed"])
def test_other_arrivals(arrivals: str, fast_cli: Cli, tmp_path: Path) -> None:
    own = "serving.clients=[1,3]" if arrivals == "closed" else "serving.loads=[200,400]"
    done = fast_cli(*WORDS, f"serving.arrivals={arrivals}", own, "serving.workers=2")
    assert done.returncode == 0, done.stderr
    points = result_of(tmp_path).points
    assert [point.clients for point in points if not point.offered] == ([1, 3] if arrivals == "closed" else [12])
    assert sum(point.answered for point in points) == sum(point.sent for point in points) > 0


def test_a_trace_is_served(fast_cli: Cli, tmp_path: Path) -> None:
    trace = tmp_path / "a trace, with=signs.txt"
    trace.write_text("0 20\n0.01 64\n0.02, 65\n0.03 20\n")
    done = fast_cli(*WORDS, "serving.arrivals=trace", f"serving.trace={trace}")
    assert done.returncode == 0, done.stderr
    (point,) = result_of(tmp_path).points
    # One request is longer than the longest sequence.
    assert (point.sent, point.answered, point.too_long, point.tokens) == (4, 3, 1, 104)
    assert "1 longer than the engine allows" in table_in(tmp_path / "results", "serving").read_text()


def test_all_requests_too_long(fast_cli: Cli, tmp_path: Path) -> None:
    lengths = tmp_path / "lengths.txt"
    lengths.write_text("70\n80\n")
    done = fast_cli(*WORDS, "lengths=file", f"lengths.path={lengths}")
    (record,) = read_records(tmp_path / "results", "serving")
    assert record.outcome == "unavailable", done.stderr
    assert record.reason == ("all requests are longer than the longest sequence, 64 tokens; give a longer sequence")


def test_a_session_that_always_fails(fast_cli: Cli, tmp_path: Path) -> None:
    fast_cli(*WORDS, "null.behaviour=raise")
    (record,) = read_records(tmp_path / "results", "serving")
    assert record.outcome == "failed"
    assert "null.behaviour=raise was requested" in record.reason


def test_a_wrong_output_fails(fast_cli: Cli, tmp_path: Path) -> None:
    fast_cli(*WORDS, "null.behaviour=garbage", "serving.loads=[100]")
    (record,) = read_records(tmp_path / "results", "serving")
    assert record.outcome == "failed"
    assert "cosine to the FP32 reference is below 0.5" in record.reason


def test_a_model_is_served_and_its_outputs_are_right(fast_cli: Cli, tmp_path: Path) -> None:
    small = "num_hidden_layers: 2, hidden_size: 64, num_attention_heads: 2, intermediate_size: 128"
    done = fast_cli(
        *WORDS, "backend=torch_eager", "device=cpu", "weights=random", "serving.loads=[50]", "serving.pad_to=built",
        f"model.architecture={{model_type: bert, {small}}}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "serving")
    (check,) = record.checks
    assert (check.batch, check.sequence) == (4, 64)
    assert check.cosine == pytest.approx(1.0, abs=1e-4)
    assert sum(point.answered for point in result_of(tmp_path).points) > 0


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("serving.loads=[-5]", "serving.loads=-5.0 must be greater than 0 and finite"),
        ("serving.loads=[1e9]", "serving.loads=1e+09 for suite.seconds=0.05 has 50,000,000 requests; at most 1,000,000 "
         "are allowed: lower one of them"),
        ("serving.clients=[0]", "serving.clients=0 must be between 1 and 256"),
        ("serving.clients=[257]", "serving.clients=257 must be between 1 and 256"),
        ("serving.wait_ms=-1", "serving.wait_ms=-1.0 must be at least 0"),
        ("serving.bound_ms=[-1]", "serving.bound_ms=-1.0 must be greater than 0 and finite"),
        ("serving.shares=[3]", "serving.shares=3.0 must be between 0.01 and 2"),
        ("serving.group_by_length=true serving.most_requests=1", "serving.group_by_length=true has no effect on "
         "batches of one request; leave it out"),
        ("serving.input=text", "backend=null has no tokenizer for serving.input=text; leave it out"),
        ("serving.graph=true cuda_graph=false", "serving.graph=true and cuda_graph=false exclude one another; leave "
         "one out"),
        ("serving.percentile=100", "serving.percentile=100.0 must be between 50 and 99.9"),
        ("serving.workers=9", "serving.workers=9 must be between 1 and 8"),
        ("serving.most_requests=5", "serving.most_requests=5 is more than the largest batch, 4; give batch=[1,5]"),
        ("serving.queue=7", "serving.queue=7 is too small to fill the batches of 4 of all workers; use at least 8"),
        ("serving.trace=x", "serving.trace needs serving.arrivals=trace; add it, or leave serving.trace out"),
        ("serving.arrivals=trace", "serving.trace=(nothing) is not a file; give a file with one entry per line"),
        ("serving.arrivals=closed serving.bound_ms=[5]", "serving.bound_ms searches a load, and "
         "serving.arrivals=closed has none; use poisson or bursts"),
        ("serving.arrivals=closed serving.loads=[5]", "serving.loads has no effect with serving.arrivals=closed; leave "
         "it out"),
        ("serving.arrivals=closed serving.queue=20", "serving.clients=64 is more than serving.queue=20, so clients "
         "would be rejected without end; raise serving.queue"),
        ("serving.arrivals=closed serving.clients=[]", "serving.clients=[] is empty; give at least one value, e.g. "
         "serving.clients=[1,16]"),
    ],
    ids=lambda value: value[:32],
)  # fmt: skip
def test_a_request_that_cannot_run_is_refused_in_one_line(word: str, message: str, fast_cli: Cli) -> None:
    done = fast_cli(*WORDS, *word.split())
    assert done.returncode == 2
    assert done.stderr == f"refused: {message}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\nx\n", "line 2: 'x' is not a time in seconds"),
        ("0\n-1\n", "line 2: '-1' is not a time in seconds"),
        ("0 1\n", "line 1: '0 1' is not a time in seconds"),
        ("1\n0.5\n", "line 2: '0.5' is earlier than the line before"),
        ("0 8\n1\n", "some lines have a number of tokens and others have none"),
        ("", "is empty"),
    ],
)
def test_a_trace_with_a_fault_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text(text)
    with pytest.raises(Refused, match=message):
        read_arrivals(str(file))


def test_a_trace_is_read(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text("0.5 8\n0.5,16\n\n12 , 9\n")
    assert read_arrivals(str(file)) == ((500_000_000, 8), (500_000_000, 16), (12_000_000_000, 9))
    file.write_text("0\n1.25\n")
    assert read_arrivals(str(file)) == ((0, 0), (1_250_000_000, 0))


def test_a_row_has_the_figures_of_its_load(make_record: MakeRecord) -> None:
    text = serving_tables([served(make_record, point())])
    assert "tiny, null fp32, up to 2x16: batches of up to 2 requests, wait 1 ms" in text
    (row,) = rows(text)
    assert row["p99.9 ms"] == row["p50 ms"] == "2.00"
    assert (row["batch"], row["largest"], row["padding"], row["busy"]) == ("1.33", "2", "10.0%", "50%")
    assert (row["Python µs"], row["requests"]) == ("2.00", "1,000")
    assert "rejected" not in row or not row["rejected"]


def test_the_busy_share_is_that_of_all_workers(make_record: MakeRecord) -> None:
    (row,) = rows(serving_tables([served(make_record, point(), options={"workers": 2})]))
    assert row["busy"] == "25%"


def test_a_percentile_needs_enough_answers(make_record: MakeRecord) -> None:
    (row,) = rows(serving_tables([served(make_record, point(answered=99, sent=99))]))
    assert "p99 ms" not in row or not row["p99 ms"]
    assert row["p90 ms"] == "2.00"


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"rejected": 10, "sent": 1010}, "more requests than the server can answer"),
        ({"seconds": 12.0, "achieved": 83.3}, "more requests than the server can answer"),
        ({"seconds": 10.4, "achieved": 96.2}, "too few requests to say if the server keeps up; raise suite.seconds"),
        ({"errors": 3, "first_error": "no kernel", "sent": 1003}, "3 errors: no kernel"),
        ({"too_long": 3, "sent": 1003}, "3 longer than the engine allows"),
    ],
    ids=str,
)
def test_a_load_with_failures_has_a_note(changes: dict[str, Any], note: str, make_record: MakeRecord) -> None:
    assert note in serving_tables([served(make_record, point(**changes))])
    assert note not in serving_tables([served(make_record, point())])


@pytest.mark.parametrize(("key", "value"), [("sent", -1), ("latency", {}), ("batches", {"1": "x"}), ("purpose", 3)])
def test_a_record_with_a_wrong_load_is_bad(key: str, value: object, make_record: MakeRecord) -> None:
    data = json_of(served(make_record, point()))
    data["scores"]["points"][0][key] = value
    with pytest.raises(BadRecord, match=rf"scores\.points\[0\]\.{key}"):
        Record.from_json({**data, "schema": 1})


def test_the_limit_of_this_machine_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator_limit, "RATES", (1000.0, 80_000.0))
    assert main(["--seconds", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[1:]] == ["1,000", "80,000"]
    assert {line.split()[-1] for line in printed[1:]} <= {"yes", "no"}
    for seconds in ("-1.0", "0.9"):
        assert main(["--seconds", seconds]) == 2
        assert capsys.readouterr().err == f"refused: --seconds={seconds} must be between 1 and 10\n"


def test_graphs_are_replayed(fast_cli: Cli, tmp_path: Path) -> None:
    """The simulated GPU has graphs for the two built shapes, with and without padding."""
    words = ("null.gpu_ms=0.2", "serving.graph=true", "serving.pad_to=built", "serving.loads=[200]")
    done = fast_cli(*WORDS, *words, "serving.workers=2")
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "serving")
    assert record.cell.options["graph"] is True
    assert [check.cuda_graph for check in record.checks] == [False, True]
    for measured in result_of(tmp_path).points:
        assert measured.replayed == sum(measured.batches.values()) > 0
    (saturated, *_) = rows(table_in(tmp_path / "results", "serving").read_text())
    assert saturated["graph"] == "100%"


def test_graphs_on_a_device_without_them(fast_cli: Cli, tmp_path: Path) -> None:
    fast_cli(*WORDS, "serving.graph=true")
    (record,) = read_records(tmp_path / "results", "serving")
    assert record.outcome == "unsupported"
    assert record.reason == "the null backend has CUDA graphs only if null.gpu_ms is above 0; set it"


def test_a_record_with_one_bound_of_an_earlier_version_is_read(make_record: MakeRecord) -> None:
    highest = {"bound_ms": 5.0, "percentile": 99.0, "load": 80.0, "above": None, "tried": 2}
    record = served(make_record, point(), highest=highest)
    assert isinstance(record.result, ServingResult)
    assert [found.load for found in record.result.highest] == [80.0]
    assert "Highest load with 99% of latencies within 5 ms: 80.0 requests/s" in serving_tables([record])


def test_figures_of_the_gpu_are_those_of_the_time_of_a_load() -> None:
    """The GPU is idle until 1 s, and then busy at 0.2 W under the second load."""
    loads = (point(start_ns=0, seconds=1.0), point(start_ns=10**9, seconds=2.0), point(start_ns=0, seconds=0.1))
    result = from_json(ServingResult, {"points": list(loads)}, "result")
    readings = [
        Reading(at, 0, 0, 0.0, 0, 0, max(0, (at - 10**9) // 5_000_000), 0, 1, at, 0 if at <= 10**9 else 90)
        for at in range(0, 3_100_000_000, 20_000_000)
    ]
    before, during, short = observed(result, GpuReadings(readings)).points
    assert (before.gpu_busy, before.energy_mj) == (0.0, None)
    assert during.gpu_busy == 0.9
    assert during.energy_mj == pytest.approx(400 / 1000)
    assert (short.gpu_busy, short.energy_mj) == (None, None)
    assert observed(result, GpuReadings([])).points == result.points


def test_each_worker_of_a_pool_is_a_process(cli: Cli, tmp_path: Path) -> None:
    """A pass takes 20 ms of sleep, so two processes answer about twice as many requests as one."""
    own = ("null.step_ms=20", "batch=[1]", "serving.loads=[20]", "suite.seconds=0.4", "serving.pool=processes")
    done = cli(*WORDS, *own, "serving.workers=2")
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "serving")
    assert record.cell.options["pool"] == "processes"
    saturated, offered = result_of(tmp_path).points
    assert saturated.answered == saturated.sent > 0
    assert 50 < saturated.achieved <= 100
    assert offered.latency.p50 >= 20e6
    assert offered.session_ns >= 20e6 * offered.answered > 0
    assert "2 processes" in table_in(tmp_path / "results", "serving").read_text()


def test_a_process_that_ends_before_its_connection_is_an_error() -> None:
    def start(path: str) -> None:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"), process_runner(start):
        pass
    with pytest.raises(RuntimeError, match="ended early"), process_runner(lambda path: None):
        pass


def test_batches_go_to_a_process_and_back() -> None:
    """The error of a batch comes back for each of its requests."""

    class Faulty:
        clock = HostClock()

        def run(self, batch: Sequence[Arrived]) -> list[Finished]:
            assert batch == [Arrived(5, 1), Arrived(6, 2)]
            return [Finished(batch[:1], 7, 8, 9, 16), Finished(batch[1:], 9, 9, 10, 32, "no kernel", True, 3)]

    sent = [Arrived(5, 1), Arrived(6, 2)]
    with process_runner(lambda path: serve_batches(path, Faulty())) as runner:
        assert runner.run(sent) == Faulty().run(sent)


def test_a_process_that_ends_during_a_load_is_an_error() -> None:
    class Ending:
        clock = HostClock()

        def run(self, batch: Sequence[Arrived]) -> list[Finished]:
            raise SystemExit

    def start(path: str) -> None:
        with pytest.raises(SystemExit):
            serve_batches(path, Ending())

    with process_runner(start) as runner, pytest.raises(RuntimeError, match="a process of the pool has ended"):
        runner.run([Arrived(5, 1)])


def test_requests_are_texts_that_the_server_tokenizes(fast_cli: Cli, tmp_path: Path) -> None:
    model = word_model(tmp_path / "model")
    words = ("backend=torch_eager", "device=cpu", "serving.input=text", "serving.loads=[50]", "serving.workers=2")
    done = fast_cli(*WORDS, f"model.path={model}", "batch=[1,4]", "sequence=[16]", "lengths=uniform", *words)
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "serving")
    assert record.cell.options["input"] == "text"
    assert record.checks[0].cosine == pytest.approx(1.0, abs=1e-4)
    for measured in result_of(tmp_path).points:
        assert (measured.errors, measured.answered) == (0, measured.sent)
        assert measured.tokenize_ns > 0
    (saturated, *_) = rows(table_in(tmp_path / "results", "serving").read_text())
    assert saturated["tokenizer µs"]


def test_texts_need_a_tokenizer(fast_cli: Cli, tmp_path: Path) -> None:
    small = "num_hidden_layers: 1, hidden_size: 16, num_attention_heads: 2, intermediate_size: 32"
    fast_cli(
        *WORDS, "backend=torch_eager", "device=cpu", "weights=random", "serving.input=text",
        f"model.architecture={{model_type: bert, {small}}}",
    )  # fmt: skip
    (record,) = read_records(tmp_path / "results", "serving")
    assert record.outcome == "unavailable"
    assert record.reason == "serving.input=text needs the texts and the fast tokenizer of a checkpoint; use ids"


def test_the_tokenizer_gives_the_ids_of_the_texts(tmp_path: Path) -> None:
    tokenizer = fast_tokenizer(word_model(tmp_path))
    assert tokenizer is not None
    stored = stored_tokenizer(tokenizer)
    (first, second) = RequestTokenizer(stored).ids(["the cat", "a red dog ran"])
    assert first.tolist() == [[2, 4, 5, 3]]
    assert (second.shape, second.dtype) == ((1, 6), np.dtype(np.int32))
    texts = RequestTexts.of([first[0], second[0]], 0, ("input_ids", "attention_mask"))
    texts = replace(texts, strings=np.asarray(["the cat", "a red dog ran"]), tokenizer=stored)
    read = RequestTexts.read(texts.arrays())
    for row, expected in zip(read.tokenized([1, 0]), read.rows([1, 0]), strict=True):
        np.testing.assert_array_equal(row, expected)
