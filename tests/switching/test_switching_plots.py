"""Plots of switching records: at most eight labelled lines, and files that do not depend on the time."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, Measured

from backends.null_.null import Costs as Programmed
from suites.records.record import Record, write_record
from suites.records.results_folder import MachineFolder, machine_folders
from suites.report import main
from suites.switching.plot import chosen, drawable, is_steep, labels_of
from suites.switching.plot_files import write_plots
from suites.switching.tables import costs_of
from suites.tables.series_styles import MOST_SERIES, spread_out
from suites.tables.suite_plots import write_suite_plots

REFERENCE = ROOT / "results" / "reference"


def texts(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


def as_backend(record: Record, backend: str, **options: object) -> Record:
    """Return the record as one of another backend, with more options."""
    cell = replace(record.cell, backend=backend, options={**record.cell.options, **options})
    return replace(record, cell=cell)


def test_at_most_eight_strategies_are_drawn(measured: Measured, tmp_path: Path) -> None:
    fast, slow = (measured(Programmed(step_ms=step), repeats=2) for step in (5, 9))
    steep = measured(Programmed(step_ms=6, shape_ms=20), repeats=2)
    records = [as_backend(record, f"b{number}", which=record is fast) for number in range(6) for record in (fast, slow)]
    records += [as_backend(steep, "b0", which="steep"), as_backend(steep, "b1", which="steep")]
    costs = [strategy for record in records for strategy in costs_of(record, {})]
    drawn = chosen(costs)
    assert (len(drawable(costs)), len(drawn)) == (14, MOST_SERIES)
    assert {strategy.record.cell.backend for strategy in drawn} == {f"b{number}" for number in range(6)}
    assert [is_steep(strategy) for strategy in drawn].count(True) == 2
    assert all(strategy.record.cell.options["which"] is not False for strategy in drawn)
    (path,) = write_plots(records, tmp_path)
    written = texts(path)
    assert "8 of 14 strategies. Lines: predicted. Markers: replayed requests." in written
    assert {"ms per request", "ms, log scale"} <= set(written)
    before = path.read_bytes()
    write_plots(records, tmp_path)
    assert path.read_bytes() == before


def test_labels_of_equal_strategies_have_their_options(measured: Measured) -> None:
    record = measured(Programmed(step_ms=5), repeats=2)
    costs = [costs_of(as_backend(record, "a", which=which), {})[0] for which in ("x", "y")]
    assert labels_of(costs[:1]) == ["a, no CUDA graphs"]
    assert labels_of(costs) == ["a, fp32 (which=x)", "a, fp32 (which=y)"]


def test_each_workload_has_its_own_file(measured: Measured, tmp_path: Path) -> None:
    record = measured(Programmed(step_ms=5), repeats=2)
    other = replace(record, cell=replace(record.cell, weights="trained"))
    for each in (record, as_backend(record, "b"), other):
        write_record(tmp_path, each)
    assert main([str(tmp_path)]) == 0
    names = sorted(path.name for path in (tmp_path / "gpu-a" / "plots").iterdir())
    assert [re.sub("-[0-9a-f]{8}", "-DIGEST", name) for name in names] == [
        "switching-tiny-fp32-DIGEST.svg",
        "switching-tiny-fp32.svg",
    ]
    assert (
        sum("no CUDA graphs" in text for text in texts(tmp_path / "gpu-a" / "plots" / "switching-tiny-fp32.svg")) == 2
    )


@pytest.mark.parametrize("folder", machine_folders(REFERENCE), ids=lambda folder: folder.name)
def test_committed_plots_match_the_committed_records(folder: MachineFolder, tmp_path: Path) -> None:
    (tmp_path / folder.name).mkdir()
    (tmp_path / folder.name / "records").symlink_to(folder.path / "records")
    copy = MachineFolder(tmp_path, folder.name)
    written = sorted(write_suite_plots(copy))
    assert not copy.bad
    committed = sorted(folder.plots.glob("*.svg"))
    assert [path.name for path in written] == [path.name for path in committed]
    assert [texts(path) for path in written] == [texts(path) for path in committed]


def test_labels_are_spread_out_in_their_order() -> None:
    placed = spread_out([50, 10, 51, 52, 99], 10, 0, 100)
    assert placed[1] == 10
    assert placed == [pytest.approx(value) for value in (41, 10, 51, 61, 99)]
    crowded = spread_out([0, 0, 0], 60, 0, 100)
    assert crowded == [0, 50, 100]
    assert spread_out([], 5, 0, 10) == []
