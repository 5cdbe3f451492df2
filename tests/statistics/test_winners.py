"""Winners over several processes: simulated runs with a known true order."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from markdown_rows import rows

from suites.latency.tables import latency_section
from suites.measuring.cpu_load import CpuLoad
from suites.records.measurement import GPU, LATENCY, Measurement, Telemetry
from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.statistics.noise import (
    FILE,
    Noise,
    PathKey,
    Study,
    committed_studies,
    find_noise,
    studies,
    to_text,
    widened,
)
from suites.statistics.stats import CONFIDENCE, Estimate, confidence_slower, estimate, percentile, slower, typical
from suites.statistics.winners import Contender, cpu_others, fastest, no_winner, power_note, why_excluded

MakeRecord = Callable[..., Record]

REFERENCE = ROOT / "results" / "reference"
PROCESSES, SAMPLES = 3, 30
"""What a run takes of each cell: the default of `repeats` and of `suite.min_samples`."""


def simulated(generator: np.random.Generator, factors: Sequence[float], median_ms: float = 1.0) -> list[Measurement]:
    """Return one measurement per process, slower by its factor. Samples vary by 3%, and one in a hundred doubles."""
    measurements = []
    for process, factor in enumerate(factors):
        noise = np.exp(generator.normal(0, 0.03, SAMPLES)) * np.where(generator.random(SAMPLES) < 0.01, 2, 1)
        samples = tuple(int(1e6 * median_ms * factor * noise_factor) for noise_factor in noise)
        window = ((0, sum(samples), len(samples)),)
        measurements.append(Measurement(LATENCY, 2, 16, False, samples, window, True, process=process))
    return measurements


def winners(make_record: MakeRecord, measured: dict[str, list[Measurement]]) -> list[str]:
    """Return the rows that the latency table marks as fastest."""
    records = [
        make_record(backend=name, device="cpu", measurements=tuple(measurements))
        for name, measurements in measured.items()
    ]
    return [row["backend"] for row in rows(latency_section(records)) if "**fastest**" in row["notes"]]


def lucky(generator: np.random.Generator, spread: float) -> list[float]:
    """Return random factors for the processes of one cell."""
    return np.exp(generator.normal(0, spread, PROCESSES)).tolist()


@pytest.mark.parametrize("spread", [0.02, 0.3])
def test_equal_rows_name_a_false_winner_in_at_most_5_of_100_runs(spread: float, make_record: MakeRecord) -> None:
    generator = np.random.default_rng(1)
    false = 0
    for _ in range(100):
        rows = {name: simulated(generator, lucky(generator, spread)) for name in ("one", "other")}
        false += len(winners(make_record, rows)) == 1
    assert false <= 5


@pytest.mark.parametrize("spread", [0.002, 0.02])
def test_a_difference_of_10_percent_is_found_in_95_of_100_runs(spread: float, make_record: MakeRecord) -> None:
    generator = np.random.default_rng(2)
    right = 0
    for _ in range(100):
        rows = {"quick": simulated(generator, lucky(generator, spread)),
                "slow": simulated(generator, lucky(generator, spread), 1.1)}  # fmt: skip
        right += winners(make_record, rows) == ["quick"]
    assert right >= 95


def test_processes_that_differ_by_a_factor_of_two_end_in_a_tie(make_record: MakeRecord) -> None:
    generator = np.random.default_rng(3)
    false = 0
    for _ in range(100):
        rows = {
            name: simulated(generator, generator.choice([1.0, 2.0], PROCESSES).tolist()) for name in ("one", "other")
        }
        false += len(winners(make_record, rows)) == 1
    # The chance that all processes of one row are quick and all of the other are slow is 2 in 64.
    assert false <= 5
    rows = {"lucky": simulated(generator, [1, 1, 2]), "unlucky": simulated(generator, [2, 2, 1])}
    assert winners(make_record, rows) == ["lucky", "unlucky"]


def test_one_winner_among_several_rows_is_rarely_false(make_record: MakeRecord) -> None:
    generator = np.random.default_rng(4)
    names = [f"row{number}" for number in range(6)]
    alone = [winners(make_record, {n: simulated(generator, lucky(generator, 0.02)) for n in names}) for _ in range(50)]
    assert sum(len(marked) == 1 for marked in alone) <= 2


def sure(p50: float, error: float = 0.001) -> Estimate:
    return Estimate(p50, p50, p50, error, 2, 3, 600)


def test_a_row_that_cannot_win_blocks_slower_rows_but_not_quicker_rows() -> None:
    quick, slow = Contender(sure(1.0)), Contender(sure(2.0))
    assert fastest([quick, slow]) == [True, False]
    assert fastest([replace(quick, excluded="throttled"), slow]) == [False, False]
    assert fastest([quick, replace(slow, excluded="throttled")]) == [True, False]
    assert fastest([quick]) == [False]


def test_a_single_process_gives_no_winner_without_a_study_of_the_spread() -> None:
    unknown = [Contender(estimate([[time] * 20])) for time in (1.0, 2.0)]
    assert fastest(unknown) == [False, False]
    measured = [Contender(widened(contender.time, Noise(0.01, 6))) for contender in unknown]
    assert fastest(measured) == [True, False]
    assert fastest([measured[0], unknown[1]]) == [True, False]
    assert fastest([unknown[0], measured[1]]) == [False, False]
    with pytest.raises(ValueError, match="one process"):
        slower(unknown[0].time, measured[0].time)


def test_reasons_against_a_row_are_all_named(make_record: MakeRecord) -> None:
    record = make_record(device="cpu")
    assert why_excluded(record.measurements, on_host=True) == []
    busy = Telemetry(
        other_processes=1, throttle_reasons=("hardware slowdown",), cpu=CpuLoad(cpu_others=0.5, cpu_resolution=0.01)
    )
    changed = [replace(m, steady=False, throttled=(True,), telemetry=busy) for m in record.measurements]
    assert why_excluded(changed, on_host=True) == [
        "not steady after warm-up",
        "throttled in 2 of 2 windows (hardware slowdown)",
        "1 other process on the GPU",
        "other processes took 50% of the CPU time",
    ]
    (row,) = rows(latency_section([replace(record, measurements=tuple(changed))]))
    assert "cannot win, though its time is the lowest: not steady after warm-up" in row["notes"]


@pytest.mark.parametrize(
    ("reasons", "excluded", "note"),
    [
        (("software power cap",), [], "at the power limit in 2 of 2 windows"),
        (("hardware slowdown",), ["throttled in 2 of 2 windows (hardware slowdown)"], ""),
        (
            ("software power cap", "software thermal slowdown"),
            ["throttled in 2 of 2 windows (software thermal slowdown)"],
            "at the power limit in 2 of 2 windows",
        ),
        ((), ["throttled in 2 of 2 windows ()"], ""),
    ],
)
def test_a_row_at_the_power_limit_can_win(
    make_record: MakeRecord, reasons: tuple[str, ...], excluded: list[str], note: str
) -> None:
    record = make_record()
    throttled = [
        replace(m, throttled=(True,), telemetry=Telemetry(throttle_reasons=reasons)) for m in record.measurements
    ]
    changed = replace(record, measurements=tuple(throttled))
    assert why_excluded(throttled, on_host=False) == excluded
    assert power_note(changed, {(2, 16)}) == note
    (row,) = rows(latency_section([changed]))
    assert ("cannot win" in row["notes"]) == bool(excluded)
    assert ("power limit" in row["notes"]) == bool(note)


@pytest.mark.parametrize("unsteady_graph", [False, True])
def test_only_the_compared_time_must_be_steady(unsteady_graph: bool, make_record: MakeRecord) -> None:
    record = make_record()
    assert {m.cuda_graph for m in record.measurements if m.phase == GPU} == {False, True}
    changed = [replace(m, steady=m.cuda_graph != unsteady_graph) for m in record.measurements]
    (row,) = rows(latency_section([replace(record, measurements=tuple(changed))]))
    assert ("cannot win" in row["notes"]) == unsteady_graph


@pytest.mark.parametrize(("share", "resolution", "found"), [(0.04, 0.0, 0), (0.06, 0.0, 0.06), (0.06, 0.02, 0)])
def test_load_counts_only_above_its_resolution(
    share: float, resolution: float, found: float, make_record: MakeRecord
) -> None:
    load = Telemetry(cpu=CpuLoad(cpu_others=share, cpu_resolution=resolution))
    assert cpu_others([replace(make_record().measurements[0], telemetry=load)]) == found


def test_an_estimate_from_several_processes_is_valid_for_another_process() -> None:
    generator, hits = np.random.default_rng(5), 0
    for _ in range(200):
        process_estimate = estimate(
            [measurement.samples for measurement in simulated(generator, lucky(generator, 0.05))], resamples=200
        )
        hits += process_estimate.low <= 1e6 <= process_estimate.high
    assert 0.90 <= hits / 200 <= 0.99
    assert (process_estimate.processes, process_estimate.count, process_estimate.freedom) == (3, 90, 2)


def test_the_time_of_several_processes_is_the_geometric_mean_of_their_medians() -> None:
    processes = [[1.0] * 5, [4.0] * 5]
    assert estimate(processes).p50 == pytest.approx(2.0)
    assert typical(processes) == pytest.approx(2.0)
    assert typical(processes[:1]) == 1.0


@pytest.mark.parametrize(
    ("q", "count", "printed"), [(99, 199, False), (99, 200, True), (90, 19, False), (90, 20, True)]
)
def test_a_percentile_needs_samples_above_it(q: float, count: int, printed: bool) -> None:
    assert (percentile([1.0] * count, q) is not None) == printed


def study(machine: str, backend: str, spread: float, device: str = "cpu", precision: str = "int8") -> Study:
    return Study(PathKey(machine, device, backend, precision, False), 1, 16, (1.0, 1.0 + spread) * 3, ("a",))


def test_a_path_is_compared_by_the_nearest_study() -> None:
    studies_by_path = [
        study("a", "ort", 0.5),
        study("b", "ort", 0.1),
        study("b", "torch", 0.2),
        study("c", "ort", 0.01, "cuda"),
    ]

    def spread(machine: str, backend: str, precision: str, device: str = "cpu") -> float:
        noise = find_noise(studies_by_path, PathKey(machine, device, backend, precision, False), 16)
        assert noise is not None
        assert noise.freedom == 5
        return noise.spread

    own, other, torch = (study_noise.variance**0.5 for study_noise in studies_by_path[:3])
    assert spread("b", "ort", "int8") == pytest.approx(other)
    assert spread("a", "ort", "fp32") == pytest.approx(own)
    assert spread("a", "torch", "fp32") == pytest.approx(torch)
    assert spread("new", "ort", "int8") == pytest.approx(own)  # the larger of the two machines
    assert spread("new", "trt", "int8", "cuda") < 0.01
    assert find_noise(studies_by_path, PathKey("a", "cuda", "ort", "int8", True), 16) is None


def test_records_that_differ_only_in_ranges_are_a_study(make_record: MakeRecord) -> None:
    def record(method: str, samples: tuple[int, ...], **changes: object) -> Record:
        options = {"cuda_graph": True, "quantization": {"method": method, "placement": "gemm", **changes}}
        return make_record(precision="int8", samples=samples, options=options)

    equal = [record(f"m{number}", (1_000_000 + number,) * 20) for number in range(5)]
    other = record("m9", (9_000_000,) * 20, placement="all")
    plain, plain_requests, graph, graph_requests = studies([*equal, other])
    assert plain.medians_ms == (1.0, 1.000001, 1.000002, 1.000003, 1.000004)
    assert (plain.path.cuda_graph, graph.path.cuda_graph) == (False, True)
    assert (plain_requests.path, graph_requests.path) == tuple(
        replace(study.path, request=True) for study in (plain, graph)
    )
    assert studies(equal[:4]) == []


def test_a_record_of_many_processes_is_a_study(make_record: MakeRecord) -> None:
    measured = tuple(simulated(np.random.default_rng(0), [1.0] * 5))
    (study_noise,) = studies([make_record(device="cpu", measurements=measured)])
    assert len(study_noise.medians_ms) == 5
    assert studies([make_record(device="cpu", measurements=measured[:4])]) == []


def test_the_committed_studies_are_read_as_they_are_written() -> None:
    text = FILE.read_text(encoding="utf-8")
    noises = committed_studies()
    assert to_text(noises) == text
    assert {study.path.device for study in noises} == {"cpu", "cuda"}


def test_committed_records_that_differ_only_in_ranges_tie() -> None:
    """Seven equivalent INT8 graphs took 7.7 to 14.1 ms on one CPU, because processes differ at random."""
    records = MachineFolder(REFERENCE, "cpu-amd-epyc-2-cores").records("latency")
    (equal,) = {study.records for study in committed_studies() if study.path.machine == "cpu-amd-epyc-2-cores"}
    assert len(equal) == 7
    table = rows(latency_section([record for record in records if record.cell.id in equal]))
    here = [row for row in table if (row["batch"], row["seq"]) == ("1", "128")]
    times = [float(row["p50 ms [95% CI]"].split()[0]) for row in here]
    assert max(times) / min(times) > 1.8
    able = [row for row in here if not re.search(r"cannot win|\*\*invalid", row["notes"])]
    assert len(able) == 5
    assert all(f"a tie of {len(able)} rows" in row["notes"] for row in able)


def test_two_cards_of_one_name_have_a_larger_spread_than_processes_of_one_card() -> None:
    here, there = (
        replace(sure(time), device=device, spread=0.05, spread_freedom=4)
        for time, device in ((1.0, "GPU-0"), (1.1, "GPU-1"))
    )
    assert slower(there, replace(here, device="GPU-1"))
    assert not slower(there, here)
    assert not slower(there, replace(here, spread=float("nan")))


def test_the_spread_is_taken_from_the_nearest_size() -> None:
    small, large = study("a", "ort", 0.5), replace(study("a", "ort", 0.01), batch=32)
    nearest = [find_noise([small, large], small.path, tokens) for tokens in (8, 32, 400, 5000)]
    assert [noise.spread for noise in nearest if noise] == [
        noise_study.variance**0.5 for noise_study in (small, small, large, large)
    ]


def test_a_step_longer_than_any_wait_for_the_host_has_the_spread_of_graphs() -> None:
    plain = study("a", "torch", 0.5, "cuda")
    graph = replace(study("a", "torch", 0.01, "cuda"), path=replace(plain.path, cuda_graph=True))
    found = [find_noise([plain, graph], plain.path, 64, milliseconds * 1e6) for milliseconds in (1.4, 1.6)]
    assert [noise.spread for noise in found if noise] == [plain.variance**0.5, graph.variance**0.5]
    assert find_noise([plain], plain.path, 64, 1.6e6) == found[0]


@pytest.mark.parametrize("lead", [0.0, 0.01, 0.05, 0.3])
def test_the_confidence_agrees_with_the_test(lead: float) -> None:
    generator = np.random.default_rng(5)
    one, other = (
        estimate([generator.normal(center, 0.02, 40) for _ in range(PROCESSES)]) for center in (1.0 + lead, 1.0)
    )
    confidence = confidence_slower(one, other)
    assert (confidence > (1 + CONFIDENCE) / 2) == slower(one, other)
    assert confidence_slower(other, one) == pytest.approx(1 - confidence)
    same = estimate([[1.0, 1.0]] * PROCESSES)
    assert confidence_slower(same, same) == 0.5
    with pytest.raises(ValueError, match="one process"):
        confidence_slower(estimate([[1.0, 1.1]]), other)


def test_the_reason_of_a_missing_winner_agrees_with_the_winners() -> None:
    quick, slow = (Contender(estimate([[time, time]] * PROCESSES)) for time in (1.0, 2.0))
    alone = Contender(estimate([[0.5, 0.5]]))
    disturbed = replace(quick, excluded="throttled")
    cases = {
        "": [quick, slow],
        "no valid row": [],
        "only one valid row": [quick],
        "every valid row was disturbed or not steady": [disturbed, disturbed],
        "the spread between processes is not known": [alone, alone],
        "a row that cannot win may be faster": [disturbed, slow],
        "a row that has one process may be faster": [alone, slow],
    }
    for reason, contenders in cases.items():
        assert no_winner(contenders) == reason
        assert any(fastest(contenders)) == (not reason)
