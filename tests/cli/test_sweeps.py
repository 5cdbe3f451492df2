"""A sweep that is too large is refused before Hydra lists its cells."""

from __future__ import annotations

import pytest

from suites.cli.sweeps import MOST_CELLS, check_sweep
from suites.schema.refusals import Refused


@pytest.mark.parametrize(
    ("words", "cells"),
    [
        (("seed=range(0,100000000)",), "100,000,000"),
        (("seed=range(0,100000000,2)", "precision=fp32,int8"), "100,000,000"),
        (("seed=range(start=0,stop=101)", "batch=[1],[2]", "gpu=range(0,100)"), "20,200"),
    ],
)
def test_more_cells_than_can_be_listed_are_refused(words: tuple[str, ...], cells: str) -> None:
    with pytest.raises(Refused, match=f"the sweep has {cells} cells; split it into sweeps of at most {MOST_CELLS:,}"):
        check_sweep(["-m", *words])


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "seed=range(0,100)", "batch=[1,8],[2]"),
        ("-m", "seed=range(0,3,0)", "batch=[1", "model.path=glob(*)"),
        ("seed=range(0,100000000)",),
    ],
)
def test_other_arguments_are_passed_to_hydra(words: tuple[str, ...]) -> None:
    check_sweep(list(words))
