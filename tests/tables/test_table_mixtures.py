"""All tables over mixed records: precisions, outcomes and suites whose cells lack some keys."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from suites.accuracy.recipe_tables import recipe_tables
from suites.records.record import OUTCOMES, Record, write_record
from suites.records.results_folder import MachineFolder, machine_folders
from suites.tables.write_tables import tables_by_suite, tables_of, write_tables

MakeRecord = Callable[..., Record]

QUANTIZED = {"quantization": {"scheme": "explicit", "method": "minmax", "activation": "uint8", "samples": 64}}
IMPLICIT = {"quantization": {"scheme": "implicit", "method": "entropy"}}
ENGINE = {"profiles": "dynamic", "min": [1, 16], "opt": [2, 16], "max": [2, 16]}
PATHS: list[tuple[str, str, dict[str, Any]]] = [
    ("torch_eager", "fp32", {"cuda_graph": False, "threads": 0}),
    ("torch_eager", "int8", {"cuda_graph": False, "threads": 0}),  # PyTorch has no INT8, so the cell has no recipe
    ("torch_packed", "int8", {}),
    ("ort", "fp32", {"fusion": "auto"}),
    ("ort", "int8", {"fusion": "auto", **QUANTIZED}),
    ("ort", "fp8", {"fusion": "auto"}),
    ("trt", "int8", {**ENGINE, **IMPLICIT}),
    ("trt", "int8", {"profiles": "ranges", "ranges": [[1, 16, 2, 16]], **QUANTIZED}),
    ("trt_plugin", "int8", {**ENGINE, "layout": "packed", **QUANTIZED}),
    ("trt_plugin", "fp16", {**ENGINE, "layout": "packed"}),
    ("null", "fp32", {"behaviour": "ok", "step_ms": 1.0}),
]
FIGURE = {"metric": "spearman", "value": 0.8, "reference_value": 0.81, "difference": -0.01, "low": -0.02, "high": 0.0,
          "verdict": "no difference found", "cosine_min": 0.97, "cosine_mean": 0.98, "max_difference": 0.1,
          "relative_error": 0.1, "nonfinite": 0, "tolerance": 0.01}  # fmt: skip
DRIFT = {name: value for name, value in FIGURE.items() if name not in ("low", "high", "verdict")} | {"gates": False}
LAYERS = {"layers": [{"point": "0/output", "nonfinite": 0, "max_difference": 0.1, "relative_error": 0.1,
                      "cosine_min": 0.9}], "threshold": 0.05, "first": "0/output"}  # fmt: skip

CEILINGS = {"ceilings": [{"name": "product", "precision": "fp32", "size": 64, "samples": [1000], "steady": True}],
            "left_out": [{"name": "product", "precision": "fp8", "reason": "it needs a GPU"}]}  # fmt: skip

KERNELS = {"profiler": "PyTorch", "kernels": [{"name": "aten::addmm", "nanoseconds": 500}], "idle_ns": 400,
           "samples": [1000], "steady": True}  # fmt: skip

BUILDING = {"builds": [{"kind": "first", "setting": "", "seconds": 3.5, "engine_bytes": 10, "plan": "a", "profiles": 1,
                        "samples": [1000, 2000], "steady": True, "output": "b", "cosine": 0.99, "layers": 2,
                        "tactics": ["x: 1", "y: 2"]},
                       {"kind": "option", "setting": "a.b=1", "outcome": "unsupported", "reason": "why"}]}  # fmt: skip

ALIGNMENT = {"sweeps": [{"axis": "sequence", "other": 2, "sizes": [15, 16], "multiples": [8]}],
             "shapes": [{"batch": 2, "sequence": 15, "samples": [1000], "steady": True},
                        {"batch": 2, "sequence": 16, "samples": [900], "steady": True},
                        {"batch": 2, "sequence": 16, "samples": [950], "steady": False, "padded": True}],
             "variants": [{"name": "", "size": 0, "value": 0, "exact": True,
                           "shapes": [{"batch": 2, "sequence": 16, "samples": [900], "steady": True}]},
                          {"name": "hidden_size", "size": 60, "value": 64, "exact": False, "shapes": [],
                           "outcome": "unsupported", "reason": "why"}]}  # fmt: skip

LAUNCH = {"times": [{"batch": 2, "sequence": 16, "cuda_graph": False, "enqueue": [1000], "steady": True,
                     "native": [900], "busy": [500], "steps": [1000]},
                    {"batch": 2, "sequence": 16, "cuda_graph": True, "enqueue": [100], "steady": True}]}  # fmt: skip

LIMITS = {"method": "green",
          "times": [{"batch": 2, "sequence": 16, "share": share, "cuda_graph": graph, "steady": True,
                     "latency": [1000], "sustained": [900], "units": 72, "total": 132}
                    for share in (0.5, 1.0) for graph in (False, True)],
          "clients": [{"client": client, "batch": 2, "sequence": 16, "cuda_graph": True, "alone": [1000],
                       "together": [1500], "units": units, "total": 2 * units}
                      for units in (0, 64) for client in (1, 2)],
          "builds": [{"share": 0.0, "seconds": 9.5, "plan": "a", "layers": 3},
                     {"share": 0.25, "outcome": "unavailable", "reason": "why"}],
          "loads": [{"sharing": "alone", "latency": [1000], "steps": [900], "batch": 8},
                    {"sharing": "time slices", "latency": [1500], "steps": [950], "batch": 8, "rejected": 1},
                    {"sharing": "MPS", "outcome": "unavailable", "reason": "why"}]}  # fmt: skip

TIMES = dict.fromkeys(("mean", "p50", "p90", "p99", "p999", "max"), 2e6)
SERVING = {"points": [{"purpose": "offered", "offered": 100.0, "clients": 0, "achieved": 99.0, "sent": 1000,
                       "answered": 990, "rejected": 4, "too_long": 3, "errors": 3, "first_error": "why",
                       "seconds": 10.0, "schedule_s": 10.0, "latency": TIMES, "queue": TIMES, "late": TIMES,
                       "batches": {"1": 990}, "tokens": 900, "padded_tokens": 1000, "session_ns": 10**9,
                       "dispatch_ns": 10**6, "assembly_ns": 10**6}]}  # fmt: skip

TRITON = {"version": "2.51.0", "ready_s": 3.0, "curves": [
    {"path": "in_process", **SERVING},
    {"path": "grpc", **SERVING, "compared": 990, "wrong": 0, "least_cosine": 0.9999, "server": [
        {"answered": 990, "batches": {"1": 990}, "queue": 1e6, "input": 1e3, "compute": 2e6, "output": 1e3}]},
]}  # fmt: skip


def scores_of(suite: str, task: str, outcome: str) -> list[dict[str, Any]]:
    """Return possible scores of a cell of this kind."""
    if outcome != "ok":
        return [{}]
    if suite == "layers":
        return [LAYERS]
    if suite == "building":
        return [BUILDING]
    if suite == "alignment":
        return [ALIGNMENT]
    if suite == "launch":
        return [LAUNCH]
    if suite == "limits":
        return [LIMITS]
    if suite == "kernels":
        return [KERNELS]
    if suite == "ceilings":
        return [CEILINGS]
    if suite == "serving":
        return [SERVING]
    if suite == "tritonserver":
        return [TRITON]
    return [FIGURE if task == "stsb" else DRIFT, {"nonfinite": 3}] if suite == "accuracy" else [{}]


@pytest.fixture
def mixed(make_record: MakeRecord) -> Callable[[str], list[Record]]:
    """Return records of a suite: every path with every outcome, for several models, tasks and length distributions."""

    def make(suite: str) -> list[Record]:
        records = []
        lengths = {"distribution": "full", "tokens": "auto", "texts": "one", "seed": 0}
        tasks = ("stsb", "sentences") if suite == "accuracy" else ("",)
        for (backend, precision, options), outcome, task in product(PATHS, OUTCOMES, tasks):
            own = {**lengths, **({"task": task, "evaluated": "x"} if task else {})}
            for number, scores in enumerate(scores_of(suite, task, outcome)):
                changes: dict[str, Any] = {} if outcome == "ok" else {"measurements": (), "checks": (), "artifacts": {}}
                model = "none" if backend == "null" else "tiny"
                records.append(
                    make_record(suite=suite, backend=backend, precision=precision, options=options, outcome=outcome,
                                model=model, reason="" if outcome == "ok" else "why", scores=scores,
                                lengths={**own, "low": number}, release=f"{backend} {outcome} {number}", **changes)
                )  # fmt: skip
        return records

    return make


@pytest.mark.parametrize("suite", [name for name in tables_by_suite() if name not in ("search", "ceilings")])
def test_a_table_has_a_row_for_every_kind_of_cell(
    suite: str, mixed: Callable[[str], list[Record]], tmp_path: Path
) -> None:
    records = [record for record in mixed(suite) if suite != "switching" or record.outcome != "ok"]
    for record in records:
        write_record(tmp_path, record)
    # The tables also read the records of the other suites.
    for other in {"latency", "accuracy"} - {suite}:
        for record in mixed(other):
            write_record(tmp_path, record)
    (folder,) = machine_folders(tmp_path)
    text = "\n".join(tables_of(suite, records, folder).values())
    assert not folder.bad
    for backend, precision, _ in PATHS:
        assert f"{backend}" in text
        assert precision in text
    written, folders = write_tables(tmp_path)
    assert written
    assert not any(folder.bad for folder in folders)


@pytest.mark.parametrize("suite", [name for name in tables_by_suite() if name not in ("search", "switching")])
def test_a_single_cell_has_its_tables(suite: str, mixed: Callable[[str], list[Record]], tmp_path: Path) -> None:
    folder = MachineFolder(tmp_path, "gpu-a")
    for record in mixed(suite):
        tables_of(suite, [record], folder)
    assert not folder.bad


def test_a_cell_without_a_recipe_is_not_in_the_recipe_table(mixed: Callable[[str], list[Record]]) -> None:
    text = recipe_tables(mixed("accuracy"), mixed("latency"))
    assert "ort ok 0" in text
    assert "torch_eager" not in text
    assert "torch_packed" not in text


def test_a_sweep_over_precisions_keeps_its_tables(make_record: MakeRecord, tmp_path: Path) -> None:
    """This is the sweep of the README: PyTorch has no INT8, so one cell ends as unsupported."""
    lengths = {"distribution": "full", "tokens": "auto", "texts": "one", "seed": 0, "task": "stsb"}
    for backend, precision, options in PATHS[:2] + PATHS[3:5]:
        unsupported = (backend, precision) == ("torch_eager", "int8")
        record = make_record(
            suite="accuracy", backend=backend, precision=precision, options=options, lengths=lengths, measurements=(),
            outcome="unsupported" if unsupported else "ok", reason="no INT8" if unsupported else "",
            scores={} if unsupported else FIGURE,
        )  # fmt: skip
        write_record(tmp_path, record)
    written, (folder,) = write_tables(tmp_path)
    assert {path.name for path in written} >= {"accuracy.md", "recipes.md"}
    assert not folder.bad
    assert "unsupported: no INT8" in (folder.tables / "tiny" / "accuracy.md").read_text()
