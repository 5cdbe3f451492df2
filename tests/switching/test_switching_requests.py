"""The switching suite from the command line: through the pipeline with a simulated clock, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, json_of, table_in

from suites.records.results_folder import read_records
from suites.switching.costs import Costs


def test_the_suite_runs_through_the_pipeline(cli: Cli, tmp_path: Path) -> None:
    done = cli("suite=switching", "backend=null", "null.gpu_ms=1", "null.shape_ms=2", "batch=[1,2]", "sequence=[16,32]",
               "switching.requests=10", "switching.repeats=2", "switching.switch=[0.5]", "suite.warm_up_s=0.05",
               "suite.replay_s=0.05", "suite.starts=3", "switching.pad_to=[[2,16],[2,32]]", "--wide")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "switching")
    assert record.cell.shapes == ((1, 16), (2, 16), (1, 32), (2, 32))
    assert {tuple(t["to"]) for t in json_of(record)["scores"]["transitions"]} == {(2, 16), (2, 32)}
    traces = [(m.trace, len(m.samples) > 0, m.cuda_graph) for m in record.measurements]
    assert traces == [("switch=0.5", True, False), ("switch=0.5", True, True)]
    assert json_of(record)["settings"]["replay_s"] == 0.05
    assert "padded up to 2x16 2x32" in done.stdout
    first, second, third = json_of(record)["scores"]["starts"]
    assert [start["shape"] for start in second["met"]] == [[2, 32], [2, 16]]
    assert (
        [start["shape"] for start in third["met"]] == [start["shape"] for start in first["met"]] == [[2, 16], [2, 32]]
    )
    assert all(sum(start["opening"].values()) > 0 for start in json_of(record)["scores"]["starts"])
    assert table_in(tmp_path / "results", "switching").exists()


def test_costs_programmed_on_the_command_line_are_recovered(
    fast_cli: Cli, simulated: Callable[[int], None], tmp_path: Path
) -> None:
    simulated(0)
    done = fast_cli("suite=switching", "backend=null", "null.step_ms=20", "+null.other={shape_ms 1x16 2x16:60}",
                    "batch=[1,2]", "sequence=[16]", "switching.repeats=100", "switching.requests=20",
                    "switching.switch=[0,1]", "suite.warm_up_s=0.5", "suite.replay_s=2",
                    "suite.pairs_s=1e3", "suite.starts=0")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "switching")
    costs = Costs.of(record, False)
    assert np.median(costs.visits[(1, 16), (2, 16)].extra) / 1e6 == pytest.approx(60, rel=0.05)
    assert abs(np.median(costs.visits[(2, 16), (1, 16)].extra)) / 1e6 < 1
    assert float(costs.means.steady[2, 16]) / 1e6 == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("switching.pad_to=[[1,16]]",), "switching.pad_to: no shape fits 1x32"),
        (("switching.pad_to=[[1]]",), "each entry must be [batch,sequence]"),
        (("switching.pad_to=[[8,513]]",), "the model has 512 positions"),
        (("switching.switch=[2]",), "switching.switch is a probability; it must be between 0 and 1, not 2.0"),
        (("switching.switch=[1e-5]", "sequence=[16,32]"), "at most 100000 are allowed"),
        (("switching.requests=1000000",), "switching.requests must be at most 100000, not 1000000"),
        (("switching.trace=Makefile",), "Makefile, line 1"),
        (("lengths=texts",), "draws lengths without a tokenizer"),
        (("suite.replay_s=0",), "suite.replay_s=0.0 must be greater than 0"),
        # This refusal comes before the check for a GPU.
        (
            ("backend=trt", "trt.ranges=[[1,1,8,32],[2,2,4,8]]", "profiles=ranges"),
            "numbers 1 and 2 overlap: both have 2x2",
        ),
        (("backend=trt", "trt.ranges=[[4,1,1,32]]", "profiles=ranges"), "is empty: the smallest shape comes first"),
    ],
)
def test_an_impossible_request_is_refused(arguments: tuple[str, ...], says: str, cli: Cli) -> None:
    done = cli("suite=switching", "backend=null", "sequence=[32]", *arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_zero_requests_give_no_replay(cli: Cli, tmp_path: Path) -> None:
    done = cli("suite=switching", "backend=null", "sequence=[16]", "switching.requests=0", "switching.repeats=1",
               "suite.warm_up_s=0.05")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "switching")
    assert record.measurements == ()
    assert len(json_of(record)["scores"]["parity"]) == 1
