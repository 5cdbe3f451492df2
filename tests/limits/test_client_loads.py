"""suite=limits with two clients with loads: processes that wait for each other, their phases, tables and advice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, json_of, measure_run, table_in
from markdown_rows import rows

from backends.base import Session, Shape, Unavailable, Unsupported
from backends.compute_share import ComputeShare, current_share, limited_to
from backends.null_.null import Costs, NullSession, null_hidden
from suites.limits.client_meeting import OTHER_ENDED, meeting_socket, others_at, pass_on
from suites.limits.limits_advice import sentences
from suites.limits.load_processes import measure_loads
from suites.limits.measure import measure
from suites.limits.result import ALONE, PROCESSES, SLICES, THREADS, LimitedTimes, LimitsResult, LoadTimes
from suites.limits.suite import BOTH, LATENCY, THROUGHPUT, LimitsQuestion, LoadPlan
from suites.limits.tables import limits_tables
from suites.measuring.clock import Effort
from suites.measuring.measure_run import MeasureRun
from suites.records.record import BadRecord, Record
from suites.records.results_folder import read_records
from suites.suite import Question, Result

MakeRecord = Callable[..., Record]
SHAPES = (Shape(1, 16), Shape(8, 16))
PLAN = LoadPlan(rate=0.0, seconds=0.03, shares=(0.25,))
QUESTION = LimitsQuestion("green", (1.0,), number=1, loads=PLAN)


def divide(shares: Sequence[float]) -> tuple[ComputeShare, ...]:
    return tuple(ComputeShare(int(share * 16), 16) for share in shares)


@contextmanager
def limit_process(share: float | None) -> Iterator[ComputeShare]:
    part = ComputeShare(0, 0) if share is None else divide((share,))[0]
    with limited_to(part if share else None):
        yield part


def run_of(session: Callable[[], Session]) -> MeasureRun:
    """Return a run whose child processes are threads of this process."""
    arrays = {}
    for shape in SHAPES:
        ids = np.full((shape.batch, shape.sequence), 7, np.int32)
        arrays |= {f"{shape}/input_ids": ids, f"{shape}/attention_mask": np.ones_like(ids)}
        arrays |= {f"{shape}/reference": null_hidden(ids), f"{shape}/rows": np.arange(shape.batch)}
    run = measure_run(session, SHAPES, arrays, Effort(0.02, 0.02, 2, 10, 0.1), cuda_graph=True)

    def again(question: Question, prefix: Sequence[str]) -> Result | None:
        assert prefix == ()
        return measure(child, question).result

    child = replace(run, divide=divide, limit_process=limit_process)
    return replace(child, again=again)


def limited_session() -> Session:
    return NullSession("ok", Costs(step_ms=0.0, gpu_ms=1.0).limited(current_share()))


def measured(run: MeasureRun) -> tuple[LoadTimes, ...]:
    result = measure(run, QUESTION).result
    assert isinstance(result, LimitsResult)
    assert result.times == ()
    return result.loads


def test_two_clients_are_measured_alone_and_with_each_kind_of_sharing() -> None:
    found = measured(run_of(limited_session))
    assert [(times.sharing, times.share, times.units) for times in found] == [
        (ALONE, 0.0, 0), (SLICES, 0.0, 0), (PROCESSES, 1.0, 16), (PROCESSES, 0.25, 4), (THREADS, 0.25, 4)
    ]  # fmt: skip
    assert {times.batch for times in found} == {8}
    for times in found:
        # 1 ms on all units; client 2 has the other 12 of 16
        of_first, of_second = (4.0, 16 / 12) if times.share == 0.25 else (1.0, 1.0)
        assert min(times.latency) >= of_first * 1e6
        assert min(times.steps) >= of_second * 1e6


def test_clients_alone_do_not_run_at_the_same_time() -> None:
    """Each session notes its steps. Alone, the steps of the two clients do not interleave."""
    lock, steps = threading.Lock(), list[str]()

    class Noting(NullSession):
        def step(self) -> None:
            with lock:
                steps.append(self._shape)
            super().step()

    run = run_of(lambda: Noting("ok", Costs(gpu_ms=0.5)))
    plan = replace(PLAN, shares=())
    loads = measure_loads(replace(run, limit_process=refusing(Unavailable("no MPS"))), replace(QUESTION, loads=plan))
    alone, together = loads[0], loads[1]
    # The last phases: all of client 1 alone, then all of client 2 alone, then both.
    first, second = len(alone.latency), 4 * len(alone.steps)
    end = len(steps) - len(together.latency) - 4 * len(together.steps)
    assert set(steps[end - second : end]) == {"8x16"}
    assert set(steps[end - second - first : end - second]) == {"1x16"}
    assert set(steps[end:]) == {"1x16", "8x16"}


def refusing(error: Exception) -> Callable[[float | None], AbstractContextManager[ComputeShare]]:
    def refuse(share: float | None) -> AbstractContextManager[ComputeShare]:
        raise error

    return refuse


@pytest.mark.parametrize(
    ("error", "outcome"), [(Unavailable("no permission"), "unavailable"), (Unsupported("no permission"), "unsupported")]
)
def test_without_mps_or_green_contexts_the_other_kinds_are_measured(error: Exception, outcome: str) -> None:
    run = replace(run_of(limited_session), limit_process=refusing(error))
    again = run.again
    *found, last = measured(replace(run, again=lambda question, prefix: refused(again, question, error)))
    assert [times.sharing for times in found] == [ALONE, SLICES, PROCESSES]
    assert (found[2].outcome, found[2].reason, found[2].latency) == (outcome, "no permission", ())
    assert last == LoadTimes(THREADS, outcome=outcome, reason="no permission")


@pytest.mark.parametrize("failing", [PROCESSES, THREADS])
def test_a_share_at_which_a_client_fails_does_not_end_the_other_shares(failing: str) -> None:
    """The client with most SMs fails at the first share."""
    run = run_of(limited_session)

    def again(question: Question, prefix: Sequence[str]) -> Result | None:
        assert isinstance(question, LimitsQuestion)
        assert question.client is not None
        number, share = question.client.number, question.client.share
        if (number, share) == ((BOTH, 0.25) if failing == THREADS else (THROUGHPUT, 0.75)):
            raise RuntimeError("the step in a child process failed: no kernel")
        return run.again(question, prefix)

    plan = replace(PLAN, shares=(0.25, 0.5))
    found = measure_loads(replace(run, again=again), replace(QUESTION, loads=plan))
    assert [(times.sharing, times.share) for times in found] == [
        (ALONE, 0.0), (SLICES, 0.0), (PROCESSES, 1.0),
        *((sharing, share) for sharing in (PROCESSES, THREADS) for share in (0.25, 0.5)),
    ]  # fmt: skip
    (failed,) = [times for times in found if times.outcome]
    client = "" if failing == THREADS else "client 2: "
    reason = f"{client}the step in a child process failed: no kernel"
    assert failed == LoadTimes(failing, 0.25, outcome="failed", reason=reason)


def refused(
    again: Callable[[Question, Sequence[str]], Result | None], question: Question, error: Exception
) -> Result | None:
    """Refuse a child with green contexts."""
    assert isinstance(question, LimitsQuestion)
    assert question.client is not None
    if question.client.number == BOTH:
        raise error
    return again(question, ())


def test_the_error_of_one_process_ends_both_and_is_the_reason() -> None:
    class Failing(NullSession):
        def step(self) -> None:
            if self._shape == "8x16" and self.replays:
                raise ValueError("step failed")
            super().step()

    with pytest.raises(ValueError, match="step failed"):
        measured(run_of(lambda: Failing("ok", Costs(gpu_ms=0.1))))


def test_a_process_that_does_not_come_up_ends_the_other_one() -> None:
    run = run_of(limited_session)

    def again(question: Question, prefix: Sequence[str]) -> Result | None:
        assert isinstance(question, LimitsQuestion)
        assert question.client is not None
        if question.client.number == LATENCY:
            raise RuntimeError("no session")
        return run.again(question, prefix)

    with pytest.raises(RuntimeError, match="no session"):
        measured(replace(run, again=again))


def test_a_client_whose_other_one_has_ended_does_not_wait() -> None:
    with meeting_socket() as (path, listener):
        ended = threading.Event()

        def leave() -> None:
            with others_at(path) as arrive:
                arrive()
            ended.set()

        threads = [threading.Thread(target=leave), threading.Thread(target=pass_on, args=(listener, 2, ended.is_set))]
        for thread in threads:
            thread.start()
        with others_at(path) as arrive:
            arrive()
            with pytest.raises(RuntimeError, match=OTHER_ENDED):
                arrive()
        for thread in threads:
            thread.join()
    with pytest.raises(RuntimeError, match=OTHER_ENDED), others_at(path):
        pytest.fail("there is no socket")


def loads(sharing: str, share: float, p99_ms: float, step_ms: float, rejected: int = 0) -> LoadTimes:
    units, total = (33, 132) if sharing == THREADS else (0, 0)
    return LoadTimes(sharing, share, (round(1e6 * p99_ms),), (round(1e6 * step_ms),), 8, rejected, units, total)


FREE = (loads(ALONE, 0, 1.0, 4.0), loads(SLICES, 0, 6.0, 5.0, rejected=3))
RESULT = LimitsResult(
    "green",
    (LimitedTimes(8, 16, 1.0, True, (1,), (1,), True),),
    loads=(
        *FREE,
        loads(PROCESSES, 1.0, 4.0, 4.0),
        loads(PROCESSES, 0.25, 2.0, 8.0),
        loads(THREADS, 0.25, 1.5, 6.4),
        LoadTimes(PROCESSES, outcome="unavailable", reason="no permission"),
    ),
)


@pytest.mark.parametrize(
    ("shared", "sentence"),
    [
        (RESULT.loads[1:5], "1.50 ms with green contexts and 25% of the SMs for client 1; client 2 keeps 62% of its "
         "throughput then. Client 2 keeps the most throughput under MPS without limits: 100%, with a p99 of client 1 "
         "of 4.00 ms. Without any setting, the p99 is 6.00 ms with time slices; client 2 keeps 80% of its throughput "
         "then."),
        (RESULT.loads[1:2] + RESULT.loads[3:4], "2.00 ms under MPS and 25% of the SMs for client 1; client 2 keeps 50% "
         "of its throughput then. Client 2 keeps the most throughput with time slices: 80%, with a p99 of client 1 of "
         "6.00 ms."),
        (RESULT.loads[1:3], "4.00 ms under MPS without limits; client 2 keeps 100% of its throughput then. Without any "
         "setting, the p99 is 6.00 ms with time slices; client 2 keeps 80% of its throughput then."),
        (RESULT.loads[1:2], "6.00 ms with time slices; client 2 keeps 80% of its throughput then."),
    ],
    ids=["green", "mps", "mps without limits", "slices"],
)  # fmt: skip
def test_the_advice_names_the_sharing_with_the_shortest_p99(shared: tuple[LoadTimes, ...], sentence: str) -> None:
    *_, found = sentences(replace(RESULT, loads=(RESULT.loads[0], *shared)))
    assert found == (
        f"Two clients with loads: the shortest p99 of client 1 is {sentence} Alone, client 1 has a p99 of 1.00 ms."
    )


def test_the_table_compares_each_kind_with_the_clients_alone(make_record: MakeRecord) -> None:
    text = limits_tables([make_record(suite="limits", measurements=(), scores=RESULT)])
    table = rows(text.partition("Two clients with loads: latency of client 1, throughput of client 2:")[2])
    columns = ("sharing", "SMs of client 1", "p99 / alone", "seq/s / alone", "notes")
    assert [tuple(row[column] for column in columns) for row in table] == [
        ("alone", "all", "1.00x", "100%", ""),
        ("time slices", "all", "6.00x", "80%", "3 requests found a full queue; lower limits.rate"),
        ("MPS", "all", "4.00x", "100%", ""),
        ("MPS", "25%", "2.00x", "50%", ""),
        ("green contexts", "25% (33 of 132)", "1.50x", "62%", ""),
        ("MPS", "", "", "", "unavailable: no permission"),
    ]


def test_a_failed_share_is_in_the_table_and_the_advice_with_the_essential_words(make_record: MakeRecord) -> None:
    place = "1: [runner.cpp::executeGraph::764] Error Code 1: "
    reason = f"client 2: the step in a child process failed: RuntimeError: no step: {place}Graph ([exec] error)"
    result = replace(RESULT, loads=(*FREE, LoadTimes(PROCESSES, 0.25, outcome="failed", reason=reason)))
    record = make_record(suite="limits", measurements=(), scores=result)
    *_, row = rows(limits_tables([record]).partition("Two clients with loads: latency of")[2])
    assert (row["SMs of client 1"], row["p99 ms"]) == ("25%", "")
    assert row["notes"] == "failed: client 2: no step: Graph ([exec] error)"
    *_, sentence = sentences(result)
    assert "a client failed under MPS and 25% of the SMs for client 1; the notes have the reason" in sentence
    assert Record.from_json({**json_of(record), "schema": 1}).result == result, "the record has the whole reason"


def test_a_record_with_loads_can_be_read_again(make_record: MakeRecord) -> None:
    record = make_record(suite="limits", measurements=(), scores=RESULT)
    assert Record.from_json({**json_of(record), "schema": 1}).result == RESULT


@pytest.mark.parametrize("change", [{"latency": []}, {"steps": [0]}, {"sharing": 1}, {"batch": 0}], ids=str)
def test_a_record_with_bad_loads_is_bad(make_record: MakeRecord, change: dict[str, object]) -> None:
    data = json_of(make_record(suite="limits", measurements=(), scores=RESULT))
    data["scores"]["loads"][0] |= change
    with pytest.raises(BadRecord, match=r"scores\.loads\[0\]\."):
        Record.from_json({**data, "schema": 1})


def test_a_run_measures_two_processes(cli: Cli, tmp_path: Path) -> None:
    done = cli("suite=limits", "backend=null", "null.gpu_ms=1", "batch=[1,8]", "sequence=[16]", "suite.seconds=0.02",
               "suite.warm_up_s=0.02", "suite.min_samples=2", "limits.shares=[1]", "limits.processes=true",
               "limits.rate=100", "limits.load_s=0.2", "limits.process_shares=[0.5]")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "limits")
    assert isinstance(record.result, LimitsResult)
    assert record.cell.options.items() >= {"process_shares": [0.5], "rate": 100.0, "load_s": 0.2}.items()
    found = [(times.sharing, times.share, times.units) for times in record.result.loads]
    assert found == [
        (ALONE, 0.0, 0), (SLICES, 0.0, 0), (PROCESSES, 1.0, 16), (PROCESSES, 0.5, 8), (THREADS, 0.5, 8)
    ]  # fmt: skip
    requests = {len(times.latency) for times in record.result.loads}
    assert len(requests) == 1  # the same arrivals in each phase
    assert requests.pop() > 5
    limited = [times for times in record.result.loads if times.share == 0.5]
    assert min(min(times.steps) for times in limited) >= 2_000_000
    assert "Two clients with loads: the shortest p99 of client 1 is " in " ".join(done.stdout.split())
    assert "Two clients with loads:" in table_in(tmp_path / "results", "limits").read_text(encoding="utf-8")


def test_a_failed_round_of_two_processes_is_in_the_result() -> None:
    result = QUESTION.failed("timeout", "measure was stopped after 300 s")
    assert isinstance(result, LimitsResult)
    assert result.loads == (LoadTimes("", outcome="timeout", reason="measure was stopped after 300 s"),)
