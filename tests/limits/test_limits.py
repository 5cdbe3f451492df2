"""suite=limits must recover programmed times on shares of a simulated GPU; two clients; advice; bad input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock, get_ident

import numpy as np
import pytest
from conftest import Cli, json_of, measure_run, table_in
from markdown_rows import rows

from backends.base import Session, Shape, Unavailable, Unsupported
from backends.compute_share import ComputeShare, current_share, limited_to
from backends.null_.null import Costs, NullSession, null_hidden
from suites.limits.limits_advice import sentences
from suites.limits.measure import measure
from suites.limits.result import ClientTimes, LimitedTimes, LimitsResult
from suites.limits.suite import LimitsQuestion, joined
from suites.limits.tables import limits_tables
from suites.measuring.clock import Effort
from suites.measuring.measure_run import MeasureRun
from suites.records.record import BadRecord, Record
from suites.records.results_folder import read_records

MakeRecord = Callable[..., Record]
SHAPES = (Shape(1, 16), Shape(8, 16))
EFFORT = Effort(0.05, 0.05, 5, 10, 0.1)
# Batch 1 waits for the host, batch 8 for the device.
PROGRAMMED = Costs(step_ms=4.0, gpu_ms=0.5, other={"gpu_ms 8x16": 10.0})
GREEN = LimitsQuestion("green", (0.25, 0.5, 1.0))


def divide(shares: Sequence[float]) -> tuple[ComputeShare, ...]:
    return tuple(ComputeShare(int(share * 16), 16) for share in shares)


@contextmanager
def limit_process(share: float | None) -> Iterator[ComputeShare]:
    with limited_to(None if share is None else divide((share,))[0]):
        yield ComputeShare(0, 0)


def limited_session() -> Session:
    return NullSession("ok", PROGRAMMED.limited(current_share()))


def run_of(session: Callable[[], Session] = limited_session, cuda_graph: bool = True) -> MeasureRun:
    arrays = {}
    for shape in SHAPES:
        ids = np.full((shape.batch, shape.sequence), 7, np.int32)
        arrays |= {f"{shape}/input_ids": ids, f"{shape}/attention_mask": np.ones_like(ids)}
        arrays |= {f"{shape}/reference": null_hidden(ids), f"{shape}/rows": np.arange(shape.batch)}
    run = measure_run(session, SHAPES, arrays, EFFORT, cuda_graph)
    return replace(run, divide=divide, limit_process=limit_process)


def measured(run: MeasureRun, question: LimitsQuestion = GREEN) -> LimitsResult:
    answer = measure(run, question)
    steps = 2 if run.cuda_graph else 1
    assert [check.cosine for check in answer.checks] == [pytest.approx(1.0)] * len(SHAPES) * len(
        question.round.shares
    ) * steps
    assert {check.cuda_graph for check in answer.checks} == {False, run.cuda_graph}
    assert isinstance(answer.result, LimitsResult)
    return answer.result


@pytest.mark.usefixtures("exact_clock")
def test_programmed_times_are_recovered_at_each_share() -> None:
    result = measured(run_of())
    found = [
        (t.batch, t.share, t.units, t.cuda_graph, t.p50_ms, round(t.sequences_per_s, 1))
        for batch, sequence in result.shapes
        for t in result.at(batch, sequence)
    ]
    assert found[:6] == [
        (1, 0.25, 4, False, 6.0, 222.2), (1, 0.25, 4, True, 2.0, 500.0),
        (1, 0.5, 8, False, 5.0, 238.1), (1, 0.5, 8, True, 1.0, 1000.0),
        (1, 1.0, 16, False, 4.5, 243.9), (1, 1.0, 16, True, 0.5, 2000.0),
    ]  # fmt: skip
    assert [(share, graph, p50) for _, share, _, graph, p50, _ in found[6:]] == [
        (0.25, False, 44.0), (0.25, True, 40.0), (0.5, False, 24.0), (0.5, True, 20.0), (1.0, False, 14.0),
        (1.0, True, 10.0),
    ]  # fmt: skip


@pytest.mark.usefixtures("exact_clock")
def test_each_round_of_mps_measures_one_share() -> None:
    question, results, shares = LimitsQuestion("mps", (0.25, 1.0)), [], []
    following: LimitsQuestion | None = question
    while following is not None:
        results.append(measured(run_of(), following))
        shares.append(following.round.shares)
        following = following.following(0)
    assert shares == [(1.0,), (0.25,)], "the largest share is first"
    result = joined(results)
    assert isinstance(result, LimitsResult)
    assert [(t.share, t.p50_ms, t.units) for t in result.at(8, 16) if t.cuda_graph] == [(0.25, 40.0, 0), (1.0, 10.0, 0)]
    assert GREEN.following(0) is None


class NoGraph(NullSession):
    def capture(self) -> None:
        raise Unsupported("no graph here")


@pytest.mark.usefixtures("exact_clock")
def test_a_step_that_cannot_be_captured_has_plain_times() -> None:
    answer = measure(run_of(lambda: NoGraph("ok", PROGRAMMED)), LimitsQuestion("green", (1.0,)))
    assert isinstance(answer.result, LimitsResult)
    assert [(t.batch, t.cuda_graph) for t in answer.result.times] == [(1, False), (8, False)]
    assert answer.facts.shapes["1x16"].no_cuda_graph == "no graph here"


def test_two_clients_run_in_their_own_threads_with_and_without_a_limit() -> None:
    seen, lock = list[tuple[int, int]](), Lock()

    def session() -> Session:
        share = current_share()
        with lock:
            seen.append((get_ident(), share.units if share else 0))
        return NullSession("ok", Costs(gpu_ms=0.1).limited(share))

    result = measured(run_of(session), LimitsQuestion("green", (1.0,), sharing=True))
    free, limited = seen[1:3], seen[3:]
    assert [units for _, units in (*free, *limited)] == [0, 0, 8, 8]
    assert len({thread for thread, _ in free}) == len({thread for thread, _ in limited}) == 2
    assert [(c.client, c.batch, c.units, c.total, c.cuda_graph) for c in result.clients] == [
        (1, 1, 0, 0, True), (2, 8, 0, 0, True), (1, 1, 8, 16, True), (2, 8, 8, 16, True)
    ]  # fmt: skip
    assert all(client.alone and client.together for client in result.clients)


class FailingSteps(NullSession):
    """Session of a client that fails after it was opened, at batch 8."""

    def step(self) -> None:
        if self.replays and self._shape == "8x16":
            raise ValueError("step failed")
        super().step()


def test_the_error_of_one_client_ends_both() -> None:
    run, plain = run_of(), iter([True])

    def session() -> Session:
        return (NullSession if next(plain, False) else FailingSteps)("ok", Costs(gpu_ms=0.1))

    run = run_of(session)
    with pytest.raises(ValueError, match="step failed"):
        measure(run, LimitsQuestion("green", (1.0,), sharing=True))


def test_a_device_that_cannot_be_divided_is_unavailable() -> None:
    def refuse(shares: Sequence[float]) -> tuple[ComputeShare, ...]:
        raise Unavailable("no green contexts here")

    with pytest.raises(Unavailable, match="no green contexts here"):
        measure(replace(run_of(), divide=refuse), GREEN)


def timed(share: float, milliseconds: float, graph: bool = True, units: int = 0) -> LimitedTimes:
    nanoseconds = (round(1e6 * milliseconds),)
    return LimitedTimes(8, 16, share, graph, nanoseconds, nanoseconds, True, units, 132 if units else 0)


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        (
            (timed(0.25, 4.0, units=40), timed(0.5, 2.1, units=72), timed(1, 2.0, units=132), timed(0.25, 2, False)),
            "8x16: 50% of the SMs (72 of 132) is enough: 2.10 ms against 2.00 ms on 100% of the SMs (132 of 132) (CUDA "
            "graph), so other work can have the rest.",
        ),
        (
            (timed(0.25, 4.0, False), timed(1, 2.0, False)),
            "8x16: every smaller share is more than 10% slower than 100% of the SMs (no CUDA graph); 25% of the SMs "
            "takes 2.0 times as long.",
        ),
        (
            (timed(0.5, 4.0),),
            "8x16: 50% of the SMs takes 4.00 ms (CUDA graph); measure more shares to compare them.",
        ),
    ],
    ids=["enough", "slower", "one share"],
)
def test_the_advice_names_the_smallest_share_that_is_enough(times: tuple[LimitedTimes, ...], sentence: str) -> None:
    assert list(sentences(LimitsResult("green", times))) == [sentence]


def clients(first_ms: float, second_ms: float, units: int) -> tuple[ClientTimes, ClientTimes]:
    total = 132 if units else 0
    return (
        ClientTimes(1, 1, 16, True, (1_000_000,), (round(1e6 * first_ms),), units, total),
        ClientTimes(2, 8, 16, True, (4_000_000,), (round(1e6 * second_ms),), units, total),
    )


@pytest.mark.parametrize(
    ("limited", "choice"),
    [
        ((1.0, 4.0), "divide the SMs."),
        ((1.0, 9.0), "divide the SMs if client 1 needs the short latency."),
        ((2.05, 5.1), "do not divide the SMs."),
        ((2.0, 4.0), "do not divide the SMs for the latency of client 1."),
    ],
    ids=str,
)
def test_the_advice_compares_two_clients_with_and_without_a_limit(limited: tuple[float, float], choice: str) -> None:
    result = LimitsResult("green", (timed(1, 2.0),), (*clients(2.0, 5.0, 0), *clients(*limited, 64)))
    _, sentence = sentences(result)
    assert sentence.startswith(f"Two clients: {choice} With half of the SMs each, the p99 of client 1 is ")
    assert "without a limit 2.00 ms; both clients together reach " in sentence
    assert sentence.endswith("and 2,100 seq/s.")


RESULT = LimitsResult(
    "green",
    (timed(0.1, 4.0, units=16), timed(1, 2.0, units=132), replace(timed(0.1, 6.0, False, 16), steady=False)),
    (*clients(2.0, 5.0, 0), *clients(1.0, 6.0, 64)),
)


def test_the_tables_have_the_sms_that_the_gpu_gave(make_record: MakeRecord) -> None:
    record = make_record(suite="limits", measurements=(), scores=replace(RESULT, clients=()))
    table = rows(limits_tables([record]))
    assert [(row["share"], row["SMs"], row["graph"], row["time"], row["notes"]) for row in table] == [
        ("10%", "16 of 132", "no", "1.00x", "not steady after warm-up"),
        ("10%", "16 of 132", "yes", "2.00x", ""),
        ("100%", "132 of 132", "yes", "1.00x", ""),
    ]


def test_the_table_of_clients_names_the_halves_of_the_sms(make_record: MakeRecord) -> None:
    text = limits_tables([make_record(suite="limits", measurements=(), scores=RESULT)])
    table = rows(text.partition("Two clients in one process")[2])
    assert [(row["client"], row["SMs"], row["alone p99 ms"], row["change"], row["seq/s"]) for row in table] == [
        ("1", "all", "1.00", "+100%", "500"),
        ("2", "all", "4.00", "+25%", "1,600"),
        ("1", "64 of 132", "1.00", "+0%", "1,000"),
        ("2", "64 of 132", "4.00", "+50%", "1,333"),
    ]
    assert "a client may have less than half" in " ".join(text.split())


@pytest.mark.parametrize(
    ("part", "change"),
    [("times", {"latency": []}), ("times", {"share": "x"}), ("clients", {"together": []}), ("clients", {"client": 0})],
    ids=str,
)
def test_a_record_without_times_is_bad(make_record: MakeRecord, part: str, change: dict[str, object]) -> None:
    data = json_of(make_record(suite="limits", measurements=(), scores=RESULT))
    data["scores"][part][0] |= change
    with pytest.raises(BadRecord, match=rf"scores\.{part}\[0\]\."):
        Record.from_json({**data, "schema": 1})


@pytest.mark.parametrize("method", ["green", "mps"])
def test_a_run_writes_a_record_tables_and_advice(cli: Cli, tmp_path: Path, method: str) -> None:
    words = ("suite=limits", "backend=null", "null.gpu_ms=1", "batch=[2]", "sequence=[16]", "suite.seconds=0.02",
             "suite.warm_up_s=0.02", "suite.min_samples=2", "limits.shares=[1,0.1,1]", f"limits.method={method}",
             *(("limits.sharing=true",) if method == "green" else ()))  # fmt: skip
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "limits")
    assert isinstance(record.result, LimitsResult)
    assert record.cell.options["shares"] == [0.1, 1.0]
    assert [(t.share, t.units, t.total) for t in record.result.at(2, 16) if t.cuda_graph] == [(0.1, 2, 16), (1, 16, 16)]
    assert len(record.result.clients) == (4 if method == "green" else 0)
    assert "slower than 100% of the SMs (16 of 16)" in " ".join(done.stdout.split())
    text = table_in(tmp_path / "results", "limits").read_text(encoding="utf-8")
    assert len(rows(text.partition("Two clients in one process")[0])) == 4


def test_the_id_of_a_cell_has_new_options_only_if_they_are_used(cli: Cli, tmp_path: Path) -> None:
    """The names of older records stay as they are."""
    words = ("suite=limits", "backend=null", "null.gpu_ms=1", "batch=[1]", "sequence=[16]", "suite.seconds=0.02",
             "suite.warm_up_s=0.02", "suite.min_samples=2", "limits.shares=[1]")  # fmt: skip
    assert cli(*words, "limits.rate=50", "limits.load_s=9").returncode == 0
    (record,) = read_records(tmp_path / "results", "limits")
    new = {"builds", "sharing", "process_shares", "rate", "load_s", "untuned"}
    assert record.cell.options.keys() & {"method", "shares", *new} == {"method", "shares"}


def test_a_backend_without_a_gpu_is_unsupported(cli: Cli) -> None:
    done = cli("suite=limits", "backend=null", "batch=[1]", "sequence=[16]")
    assert "null.gpu_ms is above 0; set it" in " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("backend=null", "lengths=uniform"), "suite=limits measures batches of full sequences; leave lengths=uniform"),
        (("backend=null", "limits.sharing=true", "limits.method=mps"), "limits.sharing=true needs limits.method=green"),
        (("backend=null", "limits.shares=[]"), "limits.shares=[] is empty; give at least one share"),
        (("backend=null", "limits.shares=[0.5,0]"), "limits.shares=0.0 must be between 0.01 and 1"),
        (("backend=null", "limits.shares=[1.5]"), "limits.shares=1.5 must be between 0.01 and 1"),
        (("backend=null", "limits.method=slices"), "limits.method"),
        (("backend=ort", "device=cpu"), "suite=limits divides the SMs of an NVIDIA GPU, and this cell runs on the CPU"),
        (("backend=null", "limits.builds=true", "limits.shares=[1]"), "limits.builds=true needs a share below 1"),
        (
            ("backend=torch_compile", "limits.builds=true"),
            "backend=torch_compile builds no engine under a limit; use backend=null or trt or trt_plugin",
        ),
        (("backend=null", "limits.process_shares=[1]"), "limits.process_shares=1.0 must be between 0.01 and 0.99"),
        (("backend=null", "limits.rate=-1"), "limits.rate=-1.0 must be at least 0"),
        (("backend=null", "limits.load_s=0"), "limits.load_s=0.0 must be greater than 0"),
        (("backend=null", "limits.rate=5"), "limits.rate=5 gives fewer than 20 requests in limits.load_s=3 s"),
        (("backend=openvino",), "suite=limits divides the SMs of an NVIDIA GPU, and this cell runs on the CPU"),
    ],
    ids=str,
)
def test_bad_input_is_refused_in_one_line(cli: Cli, words: tuple[str, ...], message: str) -> None:
    done = cli("suite=limits", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
