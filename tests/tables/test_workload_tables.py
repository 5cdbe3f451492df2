from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from conftest import replaced
from markdown_rows import rows

from suites.latency.tables import latency_tables
from suites.latency.workload_tables import workload_tables
from suites.records.measurement import Measurement
from suites.records.record import Record

MakeRecord = Callable[..., Record]
UNIFORM = {"distribution": "uniform", "low": 8, "tokens": "auto"}


@pytest.fixture
def workload(make_record: MakeRecord) -> Callable[..., Record]:
    """Return a record of a batch of 4 x 64. Each pass is (rows, longest, tokens, ms); the ms are those of a plain
    pass, and a graph takes half."""

    def make(*passes: tuple[int, int, int, float], lengths: dict[str, Any] = UNIFORM, **changes: Any) -> Record:
        shapes = {f"{batch}x{longest}": {"tokens": tokens, "cut": 0} for batch, longest, tokens, _ in passes}
        notes: dict[str, Any] = {"tokens": "random", "shapes": shapes}
        if len(passes) > 1:
            notes["passes"] = {"4x64": [list(sizes[:3]) for sizes in passes]}
        measurements = tuple(
            Measurement(phase, batch, longest, graph, (int(ms * 1e6 / (1 + graph)),) * 20, ((0, 1, 20),), True)
            for batch, longest, _, ms in dict.fromkeys(passes)
            for phase in ("gpu", "sustained")
            for graph in (False, True)
        )
        sort = {"passes": len(passes), "multiple": 16} if len(passes) > 1 else {}
        fields = {"shapes": ((4, 64),), "lengths": {**lengths, **sort}, "artifacts": {"inputs": {"notes": notes}}}
        return make_record(**fields, measurements=measurements, checks=(), **changes)

    return make


def test_a_batch_is_the_sum_of_its_passes(workload: Callable[..., Record]) -> None:
    (row,) = rows(workload_tables([workload((2, 16, 20, 1.0), (2, 16, 20, 1.0))]))
    assert (row["passes"], row["tokens"], row["padding"]) == ("2 of 2x16", "40", "38%")
    assert (row["batch ms"], row["seq/s"], row["tokens/s"]) == ("1.000", "4,000", "40,000")


def test_padded_sorted_and_packed_batches_are_compared_and_the_fastest_is_named(
    workload: Callable[..., Record],
) -> None:
    records = [
        workload((4, 64, 80, 4.0)),
        workload((2, 16, 20, 1.0), (2, 48, 60, 1.5)),
        workload((4, 64, 80, 1.0), backend="trt_plugin", options={"layout": "packed", "cuda_graph": True}),
    ]
    row_of = {row["layout"]: row for row in rows(workload_tables(records))}
    assert {layout: row["padding"] for layout, row in row_of.items()} == {
        "padded": "69%",
        "sorted": "38%",
        "packed": "0%",
    }
    assert {layout: row["seq/s"] for layout, row in row_of.items()} == {
        "padded": "2,000", "sorted": "3,200", "packed": "8,000",
    }  # fmt: skip
    assert [layout for layout, row in row_of.items() if "**fastest**" in row["notes"]] == ["packed"]


def test_an_invalid_row_is_never_fastest(workload: Callable[..., Record]) -> None:
    quick = workload((4, 64, 80, 1.0), backend="quick")
    check = {"batch": 4, "sequence": 64, "cuda_graph": False, "nonfinite": 1, "cosine": None, "problem": "1 NaN"}
    records = [replaced(quick, checks=(check,)), workload((4, 64, 80, 4.0))]
    notes_of = {row["backend"]: row["notes"] for row in rows(workload_tables(records))}
    assert "**invalid**: 1 NaN" in notes_of["quick"]
    assert "**fastest**" in notes_of["null"]


def test_gains_are_relative_to_the_fastest_padded_row_of_the_same_backend_and_precision(
    workload: Callable[..., Record],
) -> None:
    packed, fixed = ({"layout": layout, "cuda_graph": True} for layout in ("packed", "fixed"))
    slower = {**fixed, "products": "matmul"}
    broken = {"batch": 4, "sequence": 64, "cuda_graph": False, "nonfinite": 1, "cosine": None, "problem": "1 NaN"}
    records = [
        workload((4, 64, 80, 1.0), backend="trt_plugin", options=packed),
        workload((4, 64, 80, 2.5), backend="trt_plugin", options=fixed),
        workload((4, 64, 80, 3.0), backend="trt_plugin", options=slower),
        # Faster, but wrong.
        replaced(workload((4, 64, 80, 0.5), backend="trt_plugin", options={**slower, "gelu": "x"}), checks=(broken,)),
        workload((4, 64, 80, 1.0), backend="trt_plugin", options=packed, precision="int8"),
        workload((4, 64, 80, 8.0)),
        workload((2, 16, 20, 1.0), (2, 48, 60, 1.0)),
    ]
    table_rows = rows(workload_tables(records))
    gains = {(row["backend"], row["precision"], row["batch ms"]): row["speedup"] for row in table_rows}
    assert sorted(gains.values()) == ["", "", "", "", "0.83", "2.50", "4.00"]
    plugin = {
        ms: gain for (backend, precision, ms), gain in gains.items() if backend == "trt_plugin" and precision != "int8"
    }
    assert plugin == {"0.500": "2.50", "1.250": "", "1.500": "0.83", "0.250": ""}


def test_full_batches_are_not_in_the_workload_table_nor_sorted_batches_in_the_latency_table(
    make_record: MakeRecord, workload: Callable[..., Record]
) -> None:
    split, whole = workload((2, 16, 20, 1.0), (2, 48, 60, 1.5)), workload((4, 64, 80, 1.0))
    assert workload_tables([make_record()]) == ""
    assert latency_tables([split]) == ""
    assert len(rows(latency_tables([split, whole]))) == 1


def test_a_cell_that_cannot_run_is_listed_with_its_reason(workload: Callable[..., Record]) -> None:
    record = replace(workload((4, 64, 80, 1.0)), outcome="unsupported", reason="no such thing", measurements=())
    (row,) = rows(workload_tables([record]))
    assert "unsupported: no such thing" in row["notes"]
