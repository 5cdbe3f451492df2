"""Whether a server keeps up: short measurements in simulated time, and the time after the schedule that decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from serving_records import point
from virtual_time import Programmed

from backends import json_codec
from suites.serving.arrivals import OpenLoop, bursts
from suites.serving.batch_policy import BatchPolicy
from suites.serving.load_point import OfferedLoad, load_point
from suites.serving.load_verdict import SLACK, ServerRules, Verdict, most_late, rules_of, verdict
from suites.serving.result import OFFERED, LoadPoint

ONE = ServerRules(1, 1, 0.0)

SCHEDULES = 100


def verdicts(
    programmed: Programmed, rate: float, seconds: float, rules: ServerRules, monkeypatch: pytest.MonkeyPatch
) -> list[Verdict]:
    """Return the verdicts on SCHEDULES schedules of one load."""
    server, found = programmed.server(monkeypatch), []
    for seed in range(SCHEDULES):
        times = bursts(rate, seconds, rules.burst, [seed])
        served = server.serve(OpenLoop(times, np.zeros(len(times), int)))
        found.append(verdict(load_point(served, OfferedLoad(OFFERED, rate, 0, seconds), ()), rules))
    return found


@pytest.mark.parametrize("seconds", [0.1, 0.3])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize(
    ("policy", "workers", "burst"),
    [
        (BatchPolicy(), 1, 1),
        (BatchPolicy(most_requests=8), 1, 1),
        (BatchPolicy(most_requests=8, wait_ns=20_000_000), 1, 1),
        (BatchPolicy(most_requests=8), 3, 1),
        (BatchPolicy(most_requests=8), 1, 16),
    ],
    ids=["single", "batches", "wait", "workers", "bursts"],
)
def test_a_load_within_the_throughput_is_never_too_high(
    policy: BatchPolicy, workers: int, burst: int, share: float, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass takes 5 ms. The bound for chance holds for 99% of schedules, and so at most five are outside it."""
    rate = share * 200 * policy.most_requests * workers
    rules = ServerRules(workers, burst, policy.wait_ns / 1e6)
    found = verdicts(Programmed(step_ms=5.0, policy=policy, workers=workers), rate, seconds, rules, monkeypatch)
    assert found.count(Verdict.too_high) <= 5
    if share <= 0.5 and burst == 1:
        assert found.count(Verdict.keeps_up) >= 0.9 * len(found)


@pytest.mark.parametrize(("share", "seconds"), [(1.5, 1.0), (1.2, 3.0)])
@pytest.mark.parametrize("most", [1, 8])
def test_a_load_above_the_throughput_is_too_high(
    most: int, share: float, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Programmed(step_ms=5.0, policy=BatchPolicy(most_requests=most, queue=1 << 20))
    found = verdicts(server, share * 200 * most, seconds, ONE, monkeypatch)
    assert found.count(Verdict.too_high) >= 0.95 * len(found)
    assert Verdict.keeps_up not in found


def loaded(**changes: object) -> LoadPoint:
    return replace(json_codec.from_json(LoadPoint, point()), **changes)  # type: ignore[arg-type]


def test_the_time_after_the_schedule_decides() -> None:
    """1,000 requests in 10 s: 8.1% of the schedule may be chance."""
    assert most_late(1000, 1) == pytest.approx(0.08146, abs=1e-5)
    assert [verdict(loaded(seconds=seconds), ONE) for seconds in (9.0, 10.29, 10.31, 10.81, 10.82)] == [
        Verdict.keeps_up, Verdict.keeps_up, Verdict.undecided, Verdict.undecided, Verdict.too_high,
    ]  # fmt: skip
    many = {"offered": 10_000.0, "sent": 100_000, "answered": 100_000}
    assert most_late(100_000, 1) < SLACK
    assert verdict(loaded(seconds=10.31, **many), ONE) is Verdict.too_high
    assert verdict(loaded(seconds=10.31, **many), replace(ONE, burst=100)) is Verdict.undecided
    assert verdict(loaded(seconds=10.31, **many), replace(ONE, wait_ms=20)) is Verdict.keeps_up


def test_failed_requests_do_not_make_a_load_too_high() -> None:
    assert verdict(loaded(answered=500, errors=500, achieved=50.0), ONE) is Verdict.keeps_up
    assert verdict(loaded(rejected=1), ONE) is Verdict.too_high
    assert verdict(loaded(rejected=1, offered=0.0), ONE) is Verdict.keeps_up
    assert verdict(loaded(sent=0, answered=0, batches={}, seconds=0.0), ONE) is Verdict.keeps_up


def test_the_rules_are_those_of_the_cell() -> None:
    assert rules_of({"workers": 4, "burst": 8, "wait_ms": 2.0}) == ServerRules(4, 8, 2.0)
    assert rules_of({}) == ONE
