from __future__ import annotations

from collections.abc import Callable

import pytest

from suites.cli.cell_commands import command_of_cell
from suites.records.record import Record

MakeRecord = Callable[..., Record]
RUN = ("python", "-m", "suites.run")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("backend=ort", "batch=[1,8]"), ("backend=ort", "batch=[1,8]")),
        (("-m", "backend=torch_eager,ort", "precision=fp32,int8"), ("backend=ort", "precision=int8")),
        (("--multirun", "backend=ort", "precision=int8", "quantization.method=minmax,entropy"),
         ("backend=ort", "precision=int8", "quantization.method=entropy")),
        # The cell does not have the value of this key, so the command stays whole.
        (("-m", "backend=ort,trt", "suite.seconds=1,2"), ("-m", "backend=ort,trt", "suite.seconds=1,2")),
        (("-m", "experiment=bert_fp16", "precision=fp32,int8"), ("-m", "experiment=bert_fp16", "precision=int8")),
        (("-m", "backend=[", "precision=fp32,int8"), ("-m", "backend=[", "precision=fp32,int8")),
    ],
)  # fmt: skip
def test_a_command_measures_only_the_cell(
    words: tuple[str, ...], expected: tuple[str, ...], make_record: MakeRecord
) -> None:
    cell = make_record(backend="ort", precision="int8", options={"quantization": {"method": "entropy"}}).cell
    assert command_of_cell((*RUN, *words), cell) == [*RUN, *expected]


def test_another_command_stays_whole(make_record: MakeRecord) -> None:
    command = ["python", "-m", "suites.search", "backend=a,b"]
    assert command_of_cell(command, make_record().cell) == command
