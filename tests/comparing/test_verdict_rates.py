"""Rates of false and of missed verdicts, simulated with the noise of the committed records."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROOT

from suites.comparing import verdict_rates
from suites.comparing.verdict_rates import (
    COMPARISONS,
    PROCESSES,
    ROWS,
    SLOWDOWN,
    false_in_splits,
    kinds_of_path,
    processes_needed,
    rates,
    simulated_medians,
)
from suites.statistics.noise import committed_studies

KINDS = kinds_of_path(committed_studies())


def test_the_noise_is_of_single_cells_on_gpus_and_cpus() -> None:
    assert sorted(KINDS) == ["CPU", "GPU, CUDA graph", "GPU, no graph"]
    assert all(len(study.records) == 1 and len(study.medians_ms) >= 5 for found in KINDS.values() for study in found)
    assert min(map(len, KINDS.values())) >= 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("processes", PROCESSES)
def test_at_most_5_percent_of_200_comparisons_of_equal_sides_have_a_verdict(
    kind: str, rows: int, processes: int
) -> None:
    assert COMPARISONS == 200
    assert rates(KINDS[kind], processes, COMPARISONS, rows).false <= 0.05


@pytest.mark.parametrize("rows", ROWS)
def test_five_processes_find_a_slowdown_of_3_percent_with_cuda_graphs(rows: int) -> None:
    assert SLOWDOWN == 0.03
    assert rates(KINDS["GPU, CUDA graph"], 5, COMPARISONS, rows).found >= 0.9


def test_a_larger_slowdown_is_found_more_often() -> None:
    found = [rates(KINDS["CPU"], 5, COMPARISONS, slowdown=slowdown).found for slowdown in (0.03, 0.3, 1.0)]
    assert found[0] < found[1] < found[2]
    assert found[2] >= 0.9


def test_a_path_with_more_noise_needs_more_processes() -> None:
    quiet = max(KINDS["GPU, CUDA graph"], key=lambda study: study.variance)
    noisy = min(KINDS["CPU"], key=lambda study: study.variance)
    of_quiet, of_noisy = (processes_needed(study, SLOWDOWN, COMPARISONS) for study in (quiet, noisy))
    assert of_quiet is not None
    assert of_quiet <= 5
    assert of_noisy is None or of_noisy > 100


@pytest.mark.parametrize("kind", KINDS)
def test_simulated_processes_have_the_spread_of_the_study(kind: str) -> None:
    for study in KINDS[kind]:
        logs = simulated_medians(study, (20000,), np.random.default_rng(0))
        assert logs.std() == pytest.approx(study.variance**0.5, rel=0.05)
        assert abs(logs.mean()) < 0.05 * study.variance**0.5


def test_halves_of_measured_processes_have_few_verdicts() -> None:
    false, total = false_in_splits([study for found in KINDS.values() for study in found])
    assert total > 400
    assert false <= 0.05 * total


def test_the_command_prints_the_rates(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict_rates.main(["--comparisons", "20"]) == 0
    out = capsys.readouterr().out
    assert "Share of 20 commands with equal sides" in out
    for kind, studies in KINDS.items():
        assert kind in out
        assert all(f"{study.path.backend} {study.path.precision}" in out for study in studies)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--comparisons", "x"], "--comparisons x must be a whole number"),
        (["--comparisons", "1"], "--comparisons=1 must be at least 10"),
        (["--slowdown", "-1"], "--slowdown=-1.0 must be between 0.001 and 10"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict_rates.main(arguments) == 2
    assert capsys.readouterr().err == f"refused: {says}\n"


def test_the_guide_has_the_printed_rates() -> None:
    page = (ROOT / "docs" / "guides" / "compare.md").read_text(encoding="utf-8")
    printed = verdict_rates.report(COMPARISONS, SLOWDOWN).splitlines()
    figures = [line for line in printed if line.startswith(("|", "Halves"))]
    assert len(figures) > 40
    assert [line for line in figures if line not in page] == [], "run python -m suites.comparing.verdict_rates"
