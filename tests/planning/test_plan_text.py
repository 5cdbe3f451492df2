"""The text of a plan, in 80 columns."""

from __future__ import annotations

from dataclasses import replace

from conftest import ROOT

from suites.planning.estimate import Estimate
from suites.planning.plan_text import plan_text
from suites.planning.planned_cell import RECORDED, REFUSED, RUN, PlannedCell
from suites.planning.sweep_plan import SweepPlan, with_changes

GOLDEN = ROOT / "tests" / "golden" / "plan.txt"
KNOWN = Estimate(5.0, 300.0, 1.0, 60.0, 1_400_000_000, "gpu-a", True)
NEAR = replace(KNOWN, machine="nvidia-h100-80gb-hbm3-driver-580.159.04", same_cell=False)
ENGINE = PlannedCell("bert-base-uncased", "trt", "fp16", RUN, engine="a", processes=3, cost=KNOWN)


def plan(*cells: PlannedCell, devices: int = 1) -> SweepPlan:
    words = [["model=bert_base", f"batch=[{number}]", f"backend={cell.backend}"] for number, cell in enumerate(cells)]
    return SweepPlan(with_changes(cells, words), frozenset({"gpu-a"}), 0, devices)


def test_the_text_equals_the_golden_file() -> None:
    made = plan(
        ENGINE,
        replace(ENGINE, processes=1),
        replace(ENGINE, precision="int8", engine="b", engine_built=True),
        PlannedCell("bert-base-uncased", "trt_plugin", "int8", RUN, engine="c", processes=3, cost=NEAR),
        PlannedCell("bert-base-uncased", "torch_compile", "fp16", RUN, processes=3, fetches=True),
        PlannedCell("bert-base-uncased", "torch_eager", "fp16", RECORDED),
        PlannedCell("bert-base-uncased", "torch_eager", "int8", "unsupported", f"PyTorch has no {'INT8 path ' * 20}"),
        PlannedCell("bert-base-uncased", "ort", "fp16", REFUSED, "printed on standard error"),
        PlannedCell("a model with a long name " * 4, "a_backend_with_a_long_name", "fp16", "unavailable", "install it"),
    )
    text = f"{plan_text(replace(made, bad_files=1))}\n"
    assert text == GOLDEN.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 80


def test_a_shared_model_is_above_the_table_and_long_changes_are_below_their_row() -> None:
    cells = with_changes([ENGINE, ENGINE], [["seed=1", f"batch=[{number},{'9,' * 40}8]"] for number in (1, 2)])
    table = plan_text(SweepPlan(cells)).partition("\n\n")[0].splitlines()
    assert table[0] == "model: bert-base-uncased"
    assert "changes" not in table[1]
    assert table[3].startswith("      batch=[1,9,9,")
    assert max(map(len, table)) <= 80


def test_an_engine_of_several_cells_is_built_once() -> None:
    made = plan(ENGINE, replace(ENGINE, processes=1))
    assert [seconds for _, seconds in made.with_seconds()] == [485.0, 66.0]
    assert made.engines() == (1, 0)
    assert plan(replace(ENGINE, engine_built=True)).engines() == (0, 1)
    assert plan(replace(ENGINE, status=RECORDED)).engines() == (0, 0)


def test_a_cell_that_only_builds_has_no_process() -> None:
    ((_, seconds),) = plan(replace(ENGINE, until="build", processes=0)).with_seconds()
    assert seconds == 305.0


def test_several_gpus_share_the_cells() -> None:
    assert "about 16 min on one GPU, at least 4 min on 4" in plan_text(
        plan(ENGINE, replace(ENGINE, engine="b"), devices=4)
    )


def test_unknown_values_are_said() -> None:
    text = plan_text(plan(replace(ENGINE, cost=None)))
    assert "time        unknown: there are no records of similar cells" in text
    assert "memory      ?" in text
    assert "based on    no records" in text
    assert "time        nothing to run" in plan_text(plan(replace(ENGINE, status=RECORDED)))
