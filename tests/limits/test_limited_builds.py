"""suite=limits with engines built under a limit, on the simulated GPU of the null backend, and their advice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Cli, json_of, table_in
from markdown_rows import rows

from backends.base import BuildSpec, Device, Shape, Source
from backends.compute_share import BuildLimit, ComputeShare, limited_to
from backends.null_ import null
from backends.null_.null import Null, NullSession
from backends.null_.null_options import NullOptions
from suites.limits.limits_advice import sentences
from suites.limits.result import EngineBuild, LimitedTimes, LimitsResult
from suites.limits.suite import LimitsQuestion, LoadPlan, joined
from suites.limits.tables import limits_tables
from suites.records.record import Record
from suites.records.results_folder import read_records
from suites.suite import CELL

MakeRecord = Callable[..., Record]
GREEN = LimitsQuestion("green", (0.25, 0.5, 1.0), builds=True)


def rounds(question: LimitsQuestion) -> list[LimitsQuestion]:
    found: list[LimitsQuestion] = []
    following: LimitsQuestion | None = question
    while following is not None:
        found.append(following)
        following = following.following(0)
    return found


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("green", [((0.25, 0.5, 1.0), 0.0), ((0.25,), 0.25), ((0.5,), 0.5)]),
        ("mps", [((1.0,), 0.0), ((0.5,), 0.0), ((0.25,), 0.0), ((0.25,), 0.25), ((0.5,), 0.5)]),
    ],
)
def test_each_share_below_1_has_a_round_with_an_engine_of_its_own(
    method: str, expected: list[tuple[tuple[float, ...], float]]
) -> None:
    found = rounds(replace(GREEN, method=method))
    assert [(each.round.shares, each.round.built_share) for each in found] == expected
    builds = [each.build_round() for each in found]
    assert builds[0] is None
    limits = [build.limit for build in builds[1:] if build is not None]
    assert limits == [BuildLimit(method, built) if built else None for _, built in expected[1:]]
    assert {build.cache for build in builds if build is not None} == {CELL}


def test_two_processes_are_a_round_of_their_own() -> None:
    plain = LimitsQuestion("green", (1.0,))
    assert [each.round.loads for each in rounds(replace(plain, loads=LoadPlan(0, 1, (0.5,))))] == [False, True]
    assert rounds(plain) == [plain]
    assert not plain.keeps_first


def test_a_failed_build_is_in_the_result_and_the_first_round_fails_the_cell() -> None:
    first, limited, _ = rounds(GREEN)
    assert first.failed("failed", "why") is None
    expected = LimitsResult("green", (), builds=(EngineBuild(0.25, outcome="failed", reason="why"),))
    assert limited.failed("failed", "why") == expected


def test_a_share_of_mps_that_fails_keeps_the_other_shares_and_the_engine_built_on_it(make_record: MakeRecord) -> None:
    """TensorRT 8.6 failed on a share of MPS with an engine that was built on all SMs."""
    question = replace(GREEN, method="mps")
    first, second, *_ = rounds(question)
    assert first.failed("failed", "why") is None
    failed = second.failed("failed", "no step: 1: [runner.cpp::run::7] Error Code 1: Graph (error)")
    assert isinstance(failed, LimitsResult)
    (failure,) = failed.failures
    assert failure.share == 0.5
    own = LimitsResult("mps", (times(0.5, 3, 0.5),), builds=(EngineBuild(0.5, 8.0, "q"),))
    result = joined([LimitsResult("mps", (times(1, 1),), builds=(EngineBuild(0.0, 9.0, "p"),)), failed, own])
    assert isinstance(result, LimitsResult)
    record = make_record(suite="limits", measurements=(), scores=result)
    assert Record.from_json({**json_of(record), "schema": 1}).result == result
    text = limits_tables([record])
    steps, _, engines = text.partition("Engines built under a limit:")
    *_, row = rows(steps)
    assert (row["share"], row["p50 ms"], row["notes"]) == ("50%", "", "failed: no step: Graph (error)")
    (row,) = rows(engines.partition("| built on")[0])
    assert (row["share"], row["share p50 ms"], row.get("change", "")) == ("50%", "3.00", "")
    assert "At 50%, an engine built there runs." in " ".join(text.split())


@pytest.mark.parametrize(
    ("limit", "share", "gpu_ms"),
    [(None, 1.0, 2.0), (None, 0.25, 12.0), (0.25, 0.25, 8.0), (0.25, 0.5, 6.0), (0.25, None, 2.0)],
    ids=str,
)
def test_a_null_model_is_slower_on_a_share_that_it_was_not_built_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float | None, share: float | None, gpu_ms: float
) -> None:
    """Without a limit the model was built for all units, and the session without a limit is never slower."""
    spent: list[float] = []
    monkeypatch.setattr(null, "_spend", spent.append)
    options = NullOptions(gpu_ms=2.0, step_ms=0.0, untuned=1.5)
    build_limit = BuildLimit("green", limit) if limit else None
    spec = BuildSpec("fp32", Device(), (Shape(1, 16),), True, tmp_path, options, build_limit=build_limit)
    artifact = Null().build(spec, Source(tmp_path, "0"))
    part: ComputeShare | None = Null().divide(spec, (share,))[0] if share else None
    with limited_to(part), Null().open(spec, artifact) as session:
        assert isinstance(session, NullSession)
        session.step()
        session.wait()
    assert sum(spent) == gpu_ms


def times(share: float, milliseconds: float, built: float = 0.0, graph: bool = True) -> LimitedTimes:
    samples = (round(1e6 * milliseconds),)
    return LimitedTimes(8, 16, share, graph, samples, samples, True, built_share=built)


def test_rounds_are_joined_and_tactics_compared_with_those_of_the_whole_device() -> None:
    whole, own = ("a", "b", "b"), ("a", "b", "c")
    result = joined(
        [
            LimitsResult("mps", (times(0.25, 4),), builds=(EngineBuild(0.0, 9.0, "p", whole),)),
            LimitsResult("mps", (times(1, 1),), builds=(EngineBuild(0.0, 9.0, "p", whole),)),
            LimitsResult("mps", (times(0.25, 3, 0.25),), builds=(EngineBuild(0.25, 8.0, "q", own),)),
            LimitsResult("mps", (), builds=(EngineBuild(0.5, outcome="failed", reason="why"),)),
        ]
    )
    assert isinstance(result, LimitsResult)
    assert result.builds == (
        EngineBuild(0.0, 9.0, "p", layers=3),
        EngineBuild(0.25, 8.0, "q", layers=3, other_tactics=1),
        EngineBuild(0.5, outcome="failed", reason="why"),
    )
    assert [(before.p50_ms, built.p50_ms) for before, built in result.engine_pairs()] == [(4.0, 3.0)]
    assert [each.share for each in result.at(8, 16)] == [0.25, 1.0]


@pytest.mark.parametrize(
    ("built_ms", "sentence"),
    [
        (3.0, "Engines: build on the share where the engine runs. At 25% of the SMs, 8x16 takes 3.00 ms then, and 4.00 "
              "ms with the engine built on all SMs."),
        (4.1, "Engines: build on all SMs. No build on a share changes p50 by more than 5%."),
        (5.0, "Engines: build on all SMs. Engines built on a share take up to 25% longer on it."),
    ],
    ids=str,
)  # fmt: skip
def test_the_advice_names_the_place_of_the_build(built_ms: float, sentence: str) -> None:
    plain = (times(0.25, 9, graph=False), times(0.25, 1, 0.25, graph=False))
    result = LimitsResult("green", (*plain, times(0.25, 4), times(1, 1), times(0.25, built_ms, 0.25)))
    assert list(sentences(result))[1:] == [sentence]


def test_the_tables_have_both_engines_and_the_reason_of_a_failed_build(make_record: MakeRecord) -> None:
    builds = (
        EngineBuild(0.0, 9.5, "p", (), 3),
        EngineBuild(0.25, 8.0, "q", (), 3, 2),
        EngineBuild(0.5, outcome="unavailable", reason="why"),
    )
    result = LimitsResult("green", (times(0.25, 4), times(1, 1), times(0.25, 3, 0.25)), builds=builds)
    text = limits_tables([make_record(suite="limits", measurements=(), scores=result)])
    pairs, _, of_builds = text.partition("Engines built under a limit:")[2].partition("| built on")
    (pair,) = rows(pairs)
    assert (pair["share"], pair["all SMs p50 ms"], pair["share p50 ms"], pair["change"]) == (
        "25%",
        "4.00",
        "3.00",
        "-25%",
    )
    table = rows("| built on" + of_builds)
    assert [(row["built on"], row["build s"], row["other tactics"], row["notes"]) for row in table] == [
        ("all SMs", "9.50", "", ""), ("25%", "8.00", "2", ""), ("50%", "", "", "unavailable: why")
    ]  # fmt: skip


def test_a_record_with_builds_can_be_read_again(make_record: MakeRecord) -> None:
    builds = (EngineBuild(0.0, 9.5, "p", (), 3), EngineBuild(0.25, outcome="failed", reason="why"))
    result = LimitsResult("green", (times(0.25, 4), times(0.25, 3, 0.25)), builds=builds)
    record = make_record(suite="limits", measurements=(), scores=result)
    assert Record.from_json({**json_of(record), "schema": 1}).result == result
    plain = make_record(suite="limits", measurements=(), scores=LimitsResult("green", (times(1, 1),)))
    scores = json_of(plain)["scores"]
    assert {"builds", "loads"} & scores.keys() == set()
    assert "built_share" not in scores["times"][0]


@pytest.mark.parametrize("method", ["green", "mps"])
def test_a_run_measures_the_engine_of_each_share(cli: Cli, tmp_path: Path, method: str) -> None:
    done = cli("suite=limits", "backend=null", "null.gpu_ms=1", "null.untuned=1.5", "batch=[2]", "sequence=[16]",
               "suite.seconds=0.05", "suite.warm_up_s=0.02", "suite.min_samples=2", "limits.shares=[0.25,1]",
               f"limits.method={method}", "limits.builds=true")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "limits")
    assert isinstance(record.result, LimitsResult)
    assert [(build.share, build.layers, build.other_tactics) for build in record.result.builds] == [
        (0.0, 2, None), (0.25, 2, 1)
    ]  # fmt: skip
    with_graph = [pair for pair in record.result.engine_pairs() if pair[0].cuda_graph]
    ((whole, own),) = with_graph
    assert (whole.units, own.units, own.built_share) == (4, 4, 0.25)
    assert min(whole.latency) > 1.4 * min(own.latency)  # 6 and 4 ms
    assert len(record.checks) == 6  # two for each share, and two for the engine of 25%
    text = " ".join(done.stdout.split())
    assert "engines built on all SMs and on the share, both measured on the share" in text
    assert "Engines: build on the share where the engine runs." in text
    assert "Engines built under a limit" in table_in(tmp_path / "results", "limits").read_text(encoding="utf-8")
