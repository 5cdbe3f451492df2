"""The table of INT8 recipes: accuracy and latency of a recipe in one row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, json_of, replaced
from markdown_rows import rows

from suites.accuracy.recipe_tables import recipe_tables
from suites.records.record import Record
from suites.records.results_folder import read_records

MakeRecord = Callable[..., Record]
LENGTHS = {"distribution": "full", "tokens": "auto", "texts": "one", "seed": 0}


def judged(make_record: MakeRecord, difference: float, **quantization: object) -> Record:
    value = 0.82 + difference
    scores = {"metric": "spearman", "value": value, "difference": difference, "low": difference - 0.002,
              "high": difference + 0.002, "verdict": "", "cosine_min": 0.97, "nonfinite": 0,
              "tolerance": 0.01}  # fmt: skip
    return make_record(
        suite="accuracy", precision="int8", measurements=(), lengths={**LENGTHS, "task": "stsb"}, scores=scores,
        options={"quantization": quantization},
    )  # fmt: skip


def timed(make_record: MakeRecord, nanoseconds: int, **quantization: object) -> Record:
    options = {"quantization": quantization}
    return make_record(precision="int8", lengths=LENGTHS, samples=(nanoseconds,) * 20, options=options)


def test_a_row_has_the_score_and_the_time_of_a_recipe(make_record: MakeRecord) -> None:
    recipes = [
        (-0.02, 2_000_000, {"method": "entropy", "activation": "int8"}),
        (-0.001, 4_200_000, {"method": "minmax", "activation": "int8"}),
        (-0.003, 4_000_000, {"method": "percentile", "activation": "uint8"}),
    ]
    accuracy = [judged(make_record, difference, **recipe) for difference, _, recipe in recipes]
    latency = [timed(make_record, time, **recipe) for _, time, recipe in recipes]
    best, second, broken = rows(recipe_tables(accuracy, latency))
    assert (best["recipe"], best["activations"], best["p50 ms"]) == ("method=minmax", "signed", "2.100")
    assert best["difference [95% CI]"] == "-0.00100 [-0.00300, +0.00100]"
    # The fastest recipe loses more than the tolerance, so others are not compared with it.
    assert [row["slowdown"] for row in (best, second, broken)] == ["+5.0%", "+0.0%", "-50.0%"]
    assert second["activations"] == "unsigned"
    assert broken["notes"] == "**invalid**: spearman falls by 0.0200, more than 0.01"


def test_a_failed_recipe_is_last_with_its_reason(make_record: MakeRecord) -> None:
    lengths = {**LENGTHS, "task": "stsb"}
    failed, sentences = (
        make_record(suite="accuracy", precision="int8", outcome="failed", reason="no scale", measurements=(),
                    lengths={**lengths, "task": task}, scores={}, options={"quantization": {"scheme": "implicit"}})
        for task in ("stsb", "sentences")
    )  # fmt: skip
    good, nan = (judged(make_record, -0.001, scheme="explicit", method=method) for method in ("minmax", "entropy"))
    nan = replaced(nan, scores={"nonfinite": 3})
    first, *others = rows(recipe_tables([failed, sentences, nan, good], []))
    assert (first["recipe"], first["value"]) == ("scheme=explicit; method=minmax", "0.819000")
    assert {(row["recipe"].split("; ")[0], row["value"], row["notes"]) for row in others} == {
        ("scheme=implicit", "", "failed: no scale"),
        ("scheme=explicit", "", "**invalid**: 3 outputs are NaN or Inf"),
    }


def test_a_single_recipe_has_a_name_too(make_record: MakeRecord) -> None:
    (row,) = rows(recipe_tables([judged(make_record, -0.001, scheme="explicit", method="minmax")], []))
    assert row["recipe"] == "scheme=explicit; method=minmax"
    (row,) = rows(recipe_tables([judged(make_record, -0.001, scheme="explicit", method="minmax", smooth=0.75)], []))
    assert row["recipe"] == "smooth=0.75"


def test_a_latency_with_other_calibration_texts_is_not_shown(make_record: MakeRecord) -> None:
    other = make_record(precision="int8", lengths={**LENGTHS, "texts": "other"}, options={"quantization": {}})
    (row,) = rows(recipe_tables([judged(make_record, -0.001)], [other]))
    assert "p50 ms" not in row
    assert recipe_tables([], [other]) == ""


RESULTS = [ROOT / "results" / "reference"]


def on_gpus(results: Path, task: str, **attributes: object) -> list[Record]:
    """Return the accuracy records of minilm on NVIDIA GPUs whose cells have these attributes."""
    records = []
    for record in read_records(results, "accuracy"):
        cell = record.cell
        selected = all(getattr(cell, name) == value for name, value in attributes.items())
        minilm_on_gpu = cell.device == "cuda" and cell.model == "minilm" and cell.lengths["task"] == task
        records += [record] if minilm_on_gpu and selected and record.result else []
    return records


@pytest.mark.parametrize("backend", ["trt", "trt_plugin"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("task", "figure", "within"), [("stsb", 0.820325, 1e-4), ("banking77", 0.800422, 5e-4)])
def test_floating_point_on_a_gpu_has_the_published_scores(
    backend: str, precision: str, task: str, figure: float, within: float
) -> None:
    records = [record for results in RESULTS for record in on_gpus(results, task, backend=backend, precision=precision)]
    assert records
    for record in records:
        assert json_of(record)["scores"]["value"] == pytest.approx(figure, abs=within)


@pytest.mark.parametrize("backend", ["trt", "trt_plugin"])
@pytest.mark.parametrize(("trained", "within"), [(False, 0.003), (True, 0.001)])
def test_int8_on_a_gpu_keeps_the_task(backend: str, trained: bool, within: float) -> None:
    """The recipe nearest to FP32, of those at most 5% slower than the fastest valid recipe, is within the limit."""
    drops = [
        float(row["difference [95% CI]"].split(" ")[0])
        for results in RESULTS
        for row in rows(
            recipe_tables(on_gpus(results, "stsb", backend=backend, precision="int8"), read_records(results, "latency"))
        )
        if ("qat_steps" in row["recipe"]) == trained and row.get("slowdown", "") and _percent(row) <= 5
    ]
    assert min(map(abs, drops)) <= within


def _percent(row: dict[str, str]) -> float:
    return float(row["slowdown"].partition("%")[0])


def test_the_learning_rate_is_shown_if_recipes_differ_in_it(make_record: MakeRecord) -> None:
    untrained, slow, fast = (
        judged(make_record, -0.001, **({"qat_steps": 300, "qat_rate": rate} if rate else {}))
        for rate in (0, 3e-5, 1e-4)
    )
    recipes = {row["recipe"] for row in rows(recipe_tables([untrained, slow], []))}
    assert recipes == {"", "qat_steps=300"}
    recipes = {row["recipe"] for row in rows(recipe_tables([untrained, slow, fast], []))}
    assert {"qat_steps=300; qat_rate=3e-05", "qat_steps=300; qat_rate=0.0001"} < recipes


def test_recipes_with_the_same_file_name_each_other(make_record: MakeRecord) -> None:
    few, many, other = (
        replaced(judged(make_record, -0.001, samples=samples), artifacts={"onnx": {"sha256": digest}})
        for samples, digest in ((8, "aa"), (512, "aa"), (64, "bb"))
    )
    notes = {row["recipe"]: row.get("notes", "") for row in rows(recipe_tables([few, many, other], []))}
    assert notes["samples=8"] == "same ONNX file as: samples=512"
    assert notes["samples=512"] == "same ONNX file as: samples=8"
    assert notes["samples=64"] == ""
