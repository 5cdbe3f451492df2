"""Capacity: simulated replicas against queueing theory, choice of configurations, and the command."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from queueing_formulas import delay_probability, deterministic_wait
from serving_records import MakeRecord, point, served

from suites.capacity import main
from suites.records.record import Record, write_record
from suites.serving.batch_policy import BatchPolicy
from suites.serving.capacity_plan import Demand, highest_load, plan, replicas_needed, simulated_latency
from suites.serving.capacity_text import Advice, Prices
from suites.serving.result import ServingResult, Times
from suites.serving.service_times import ServiceTimes
from suites.serving.simulation import SimulatedServer

MS = 1e6


def always(milliseconds: float) -> Times:
    return Times(*[milliseconds * MS] * 6)


@dataclass(frozen=True)
class Exponential(ServiceTimes):
    """Exponential service times with a mean of 1 ms."""

    def time(self, size: int, share: float) -> int:
        return round(-math.log(1 - share) * MS)


def one_at_a_time(service: ServiceTimes) -> SimulatedServer:
    return SimulatedServer(BatchPolicy(queue=1 << 20), service)


@pytest.mark.parametrize(("replicas", "load"), [(1, 0.6), (2, 0.7), (6, 0.7)])
def test_waits_of_replicas_are_those_of_an_m_d_c_queue(replicas: int, load: float) -> None:
    server = one_at_a_time(ServiceTimes({1: always(1.0)}))
    queue_times = server.serve(1000 * load * replicas, 100_000, replicas, seed=3).queue_times
    assert np.mean(queue_times) / MS == pytest.approx(deterministic_wait(replicas, load), rel=0.05)


@pytest.mark.parametrize(("replicas", "load"), [(2, 0.7), (5, 0.8)])
def test_waits_of_replicas_are_those_of_erlang(replicas: int, load: float) -> None:
    """M/M/c: Erlang's C formula is the share of requests that wait. Their mean wait is 1 / (c (1 - load)) ms."""
    queue_times = one_at_a_time(Exponential({1: always(1.0)})).serve(1000 * load * replicas, 100_000, replicas, seed=4)
    waits = np.asarray(queue_times.queue_times) / MS
    assert np.mean(waits > 0) == pytest.approx(delay_probability(replicas, load), rel=0.05)
    expected = delay_probability(replicas, load) / (replicas * (1 - load))
    assert waits.mean() == pytest.approx(expected, rel=0.1)


def erlang_latency(replicas: int, arrivals: float, percentile: float) -> float:
    """Return a percentile of the latency of an M/M/c queue with a mean service time of 1 ms, by bisection.

    P(T > t) = exp(-t) (1 + C (1 - exp(-t (c - 1 - a))) / (c - 1 - a)) for `a` arrivals per ms.
    """
    waits, free = delay_probability(replicas, arrivals / replicas), replicas - 1 - arrivals
    low, high = 0.0, 100.0
    for _ in range(60):
        t = (low + high) / 2
        above = math.exp(-t) * (1 + waits * (1 - math.exp(-t * free)) / free)
        low, high = (t, high) if above > 1 - percentile / 100 else (low, t)
    return high


def test_the_number_of_replicas_is_that_of_the_formula() -> None:
    """For 10.5 arrivals per ms, the 99th percentile falls with the number of replicas from 11 on."""
    server, arrivals = one_at_a_time(Exponential({1: always(1.0)})), 10.5
    latencies = {replicas: erlang_latency(replicas, arrivals, 99) for replicas in range(11, 16)}
    # Between the percentiles of 12 and 13 replicas.
    bound = math.sqrt(latencies[12] * latencies[13])
    assert latencies[13] < bound < latencies[12]
    demand = Demand(1000 * arrivals, bound, 99)
    assert replicas_needed(server, demand, 11, 15) == 13
    assert simulated_latency(server, demand, 13) == pytest.approx(latencies[13], rel=0.05)
    assert replicas_needed(server, Demand(1000 * arrivals, 1.0, 99), 11, 15) is None


def test_service_times_follow_the_percentiles() -> None:
    times = ServiceTimes({1: Times(0, 10, 20, 30, 40, 50), 4: always(0.001)})
    assert [times.time(1, share) for share in (0.0, 0.5, 0.7, 0.9, 0.99, 1.0)] == [10, 10, 15, 20, 30, 50]
    # The times of a size that was not measured are those of the next larger one, or of the largest one.
    assert times.time(2, 0.5) == times.time(9, 0.5) == 1000


def point_at(rate: float, p99_ms: float) -> dict[str, object]:
    latency = dict.fromkeys(("mean", "p50", "p90", "p99", "p999", "max"), p99_ms * MS)
    return point(offered=rate, latency=latency)


def server_record(make_record: MakeRecord, *points: dict[str, object], **options: object) -> Record:
    """Return a record of a server with these loads; `highest` is the results of its search."""
    highest = options.pop("highest", [])
    saturated = point(purpose="saturated", offered=0.0, clients=2, achieved=1000.0)
    service = {"1": dict.fromkeys(("mean", "p50", "p90", "p99", "p999", "max"), MS)}
    own = {"arrivals": "poisson", "queue": 1000, "most_requests": 1, "wait_ms": 0.0, **options}
    return served(make_record, saturated, *points, options=own, service=service, highest=highest)


def test_the_highest_load_is_measured(make_record: MakeRecord) -> None:
    demand = Demand(100, 10, 99)
    record = server_record(make_record, point_at(100, 2), point_at(400, 9), point_at(800, 11))
    assert highest_load(record, demand) == 400
    assert highest_load(record, Demand(100, 1, 99)) is None
    searched = {"bound_ms": 10.0, "percentile": 99.0, "load": 390.0, "above": 400.0, "tried": 3, "reason": ""}
    assert highest_load(server_record(make_record, point_at(400, 9), highest=[searched]), demand) == 390
    other = {**searched, "bound_ms": 5.0}
    assert highest_load(server_record(make_record, point_at(400, 9), highest=[other]), demand) == 400
    full = server_record(make_record, {**point_at(100, 2), "rejected": 1, "sent": 1001})
    assert highest_load(full, demand) is None
    bursts = server_record(make_record, point_at(100, 2), arrivals="bursts")
    assert highest_load(bursts, demand) is None


def test_the_cheapest_configuration_is_first(make_record: MakeRecord) -> None:
    """One server carries the load. The other one carries 100 requests/s of it, but its times allow more."""
    slow = server_record(make_record, point_at(100, 2), workers=1)
    quick = server_record(make_record, point_at(500, 2), workers=2)
    demand = Demand(450, 10, 99)
    found = plan([slow, quick], demand)
    assert [(one.record.cell.options["workers"], one.simulated) for one in found] == [(2, False), (1, True)]
    assert found[0].replicas == 1
    assert found[0].margin(demand) == pytest.approx(500 / 450 - 1)
    assert found[0].latency_ms == 2
    assert found[0].device_hours(demand) == pytest.approx(1e6 / 450 / 3600)
    # A service time of 1 ms: two replicas have a utilization of 22%, and five have it at their measured load.
    assert found[1].replicas == 2
    assert found[1].carried > 450
    text = Advice(demand, found, Prices(2.0)).text()
    assert "1 device (measured), margin 11%, p99 2.00 ms at this load" in text
    assert f"which cost {2e6 / 450 / 3600:.2f}" in text
    assert "2 devices (simulated)" in text
    assert "Simulated: several devices were not measured." in text


def advice_for(record: Record) -> str:
    demand = Demand(450, 10, 99)
    return " ".join(Advice(demand, plan([record], demand), Prices(None), "a folder").text().split())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"weights": "trained"}, "python -m suites.deploy {id} REPOSITORY --records 'a folder'"),
        ({}, "It cannot be deployed: the model has random (seed 0) weights."),
        ({"model": "none"}, "It has no model to deploy."),
    ],
)
def test_the_command_that_deploys_is_for_a_trained_model(
    changes: dict[str, str], expected: str, make_record: MakeRecord
) -> None:
    record = server_record(make_record, point_at(500, 2))
    record = replace(record, cell=replace(record.cell, **changes))  # type: ignore[arg-type]
    text = advice_for(record)
    assert expected.format(id=record.cell.id) in text
    assert text.count("suites.deploy ") == ("model" not in changes)


def test_the_advice_names_disturbed_records(make_record: MakeRecord) -> None:
    disturbed = server_record(make_record, {**point_at(500, 2), "cpu_others": 0.62})
    assert "other processes took up to 62% of the CPU time during 1 of 2 loads" in advice_for(disturbed)
    assert "other processes" not in advice_for(server_record(make_record, point_at(500, 2)))


def test_devices_without_service_times_share_the_load(make_record: MakeRecord) -> None:
    record = server_record(make_record, point_at(100, 2), point_at(300, 8))
    result = record.result
    assert isinstance(result, ServingResult)
    (found,) = plan([replace(record, result=replace(result, service={}))], Demand(450, 10, 99))
    assert (found.replicas, found.simulated, found.carried, found.latency_ms) == (2, False, 600, 8)
    text = Advice(Demand(450, 10, 99), [found], Prices(None)).text()
    assert "2 devices (measured on one device), margin 33%, p99 8.00 ms at this load" in text
    assert "Measured on one device: each device gets an equal share of the load" in text
    assert "cost" not in text


def test_a_price_is_that_of_the_machine() -> None:
    prices = Prices(1.0, (("h100", 2.5),))
    assert prices.of("NVIDIA H100 80GB, driver 580") == 2.5
    assert prices.of("NVIDIA H200, driver 580") == 1.0
    assert Prices(None).of("x") is None


def written(folder: Path, *records: Record) -> str:
    for record in records:
        write_record(folder, record)
    return str(folder)


def test_the_command_prints_the_advice(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = written(tmp_path, server_record(make_record, point_at(500, 2)))
    assert main(["--load", "450", "--bound-ms", "10", "--records", results, "--price", "gpu-a=3.6"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("450 requests/s with 99% of latencies within 10 ms:\n1. tiny, null fp32")
    assert "which cost 2.22" in printed
    assert "Simulated" not in printed


def test_an_impossible_bound_is_one_line(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = written(tmp_path, server_record(make_record, point_at(500, 2)))
    assert main(["--load", "450", "--bound-ms", "1", "--records", results]) == 1
    assert capsys.readouterr().out == (
        "No record has a load with 99% of latencies within 1 ms: the smallest measured value is 2.00 ms; give a longer "
        "--bound-ms.\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--load -5 --bound-ms 10", "--load=-5.0 must be greater than 0 and finite"),
        ("--load 5 --bound-ms 0", "--bound-ms=0.0 must be greater than 0 and finite"),
        ("--load 5 --bound-ms 5 --percentile 98", "--percentile=98 is not one of 50, 90, 99, 99.9"),
        ("--load 5 --bound-ms 5 --price cheap", "--price=cheap is not a price; write e.g. 2.5 or h100=2.5"),
        ("--load 5 --bound-ms 5 --price -1", "--price of a device=-1.0 must be greater than 0 and finite"),
        ("--load 5 --bound-ms 5 batch=3", "'batch=3' is not a key of lengths; write e.g. lengths=stsb"),
        ("--load 5 --bound-ms 5 --model other", "there is no --model=other; choices: second, tiny"),
        ("--load 5 --bound-ms 5", "records have several models; add --model with one of second, tiny"),
        ("--load 5 --bound-ms 5 --machine cpu", "there is no --machine=cpu; choices: GPU-A, driver 1.2"),
        ("--load 5 --bound-ms 5 --model tiny lengths=stsb", "no record has these lengths; see the commands of the "
         "records with python -m suites.report"),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
def test_a_demand_that_cannot_be_answered_is_refused(
    words: str, message: str, make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = server_record(make_record, point_at(5, 2)), server_record(make_record, point_at(5, 2))
    results = written(tmp_path, first, replace(second, cell=replace(second.cell, model="second")))
    assert main([*words.split(), "--records", results]) == 2
    assert capsys.readouterr().err == f"refused: {message}\n"


def test_records_of_several_lengths_need_a_choice(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = server_record(make_record, point_at(500, 2))
    uniform = {"distribution": "uniform", "tokens": "auto", "low": 8}
    other = replace(record, cell=replace(record.cell, lengths=uniform))
    arguments = ["--load", "450", "--bound-ms", "10", "--records", written(tmp_path, record, other)]
    assert main(arguments) == 2
    assert "records have 2 distributions of lengths; add one of them, such as lengths=stsb" in capsys.readouterr().err
    assert main([*arguments, "lengths=uniform"]) == 0


def test_a_folder_without_serving_records_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--load", "5", "--bound-ms", "5", "--records", str(tmp_path)]) == 2
    assert "has no records of suite=serving" in capsys.readouterr().err
