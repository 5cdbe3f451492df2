from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from conftest import ROOT, json_of, replaced
from markdown_rows import rows

from backends.json_codec import to_json
from suites.latency.tables import latency_section, latency_tables
from suites.records.measurement import Telemetry
from suites.records.parts import Check
from suites.records.record import Record
from suites.statistics.validity import problems
from suites.tables.markdown import Incomparable

GOLDEN = ROOT / "tests" / "golden" / "latency.md"
MakeRecord = Callable[..., Record]


def test_the_table_equals_the_golden_file(make_record: MakeRecord) -> None:
    records = [
        make_record(),
        make_record(precision="int8", samples=tuple(range(400_000, 600_000, 1000))),
        make_record(backend="other", measurements=(), checks=(), outcome="unsupported", reason="no such thing"),
        make_record(machine="gpu-b", weights="trained"),
    ]
    text = latency_tables(records)
    assert text == GOLDEN.read_text()
    assert latency_tables(reversed(records)) == text


def test_figures_follow_from_the_samples(make_record: MakeRecord) -> None:
    (row,) = rows(latency_section([make_record(samples=(2_000_000,) * 30)]))
    assert row["p50 ms [95% CI]"] == "2.000 [2.000, 2.000]"
    assert row["graph p50 ms [95% CI]"] == "1.000 [1.000, 1.000]"
    assert row["seq/s"] == "2,000"  # 2 sequences in 1 ms, the time of the graph
    assert row["tokens/s"] == "32,000"
    assert row["cosine"] == "0.99998"


@pytest.mark.parametrize(
    ("precision", "products", "says"),
    [
        ("int8", {"f16": 96}, "0 of 96 products in INT8"),
        ("int8", {"i8": 72, "f16": 24}, "72 of 96 products in INT8"),
        ("int8", {"i8": 96}, ""),
        ("fp16", {"f16": 96}, ""),
    ],
)
def test_products_that_int8_left_in_fp16_are_counted(
    precision: str, products: dict[str, int], says: str, make_record: MakeRecord
) -> None:
    record = make_record(precision=precision)
    built = {"seconds": 1.0, "notes": {"product_types": products}}
    (row,) = rows(latency_section([replaced(record, artifacts={**to_json(record.artifacts), "built": built})]))
    assert ("products in INT8" in row["notes"]) == bool(says)
    assert says in row["notes"]


@pytest.mark.parametrize(
    ("precision", "counts", "says"),
    [
        ("int8", {"weight_products": 36, "weight_products_quantized": 12}, "12 of 36 weight products in INT8"),
        ("int8", {"weight_products": 36, "weight_products_quantized": 36}, ""),
        ("int8", {"weight_products_left": 12}, ""),
        ("fp32", {}, ""),
    ],
)
def test_weight_products_without_qdq_are_counted(
    precision: str, counts: dict[str, int], says: str, make_record: MakeRecord
) -> None:
    record = make_record(precision=precision)
    onnx = {"seconds": 1.0, "notes": {"quantized": 12, **counts}}
    changed = replaced(record, artifacts={**to_json(record.artifacts), "onnx": onnx})
    (row,) = rows(latency_section([changed]))
    assert ("products in INT8" in row["notes"]) == bool(says)
    assert says in row["notes"]
    assert json_of(changed)["artifacts"]["onnx"] == onnx


def test_rows_of_different_machines_are_refused(make_record: MakeRecord) -> None:
    with pytest.raises(Incomparable, match="gpu-a, gpu-b"):
        latency_section([make_record(), make_record(machine="gpu-b")])


def test_each_machine_has_its_own_section(make_record: MakeRecord) -> None:
    text = latency_tables([make_record(), make_record(machine="gpu-b")])
    assert re.findall(r"^## (\S+)", text, re.MULTILINE) == ["GPU-A,", "GPU-B,", "Legend"]


def test_a_row_without_valid_outputs_is_marked(make_record: MakeRecord) -> None:
    good = make_record()
    bad = replace(
        good,
        outcome="failed",
        reason="2x16: 3 outputs are NaN or Inf",
        checks=tuple(replace(c, nonfinite=3, cosine=None, problem="3 outputs are NaN or Inf") for c in good.checks),
    )
    measured, failed = rows(latency_section([bad]))
    assert measured["cosine"] == "NaN"
    assert "**invalid**: 3 outputs are NaN or Inf" in measured["notes"]
    assert failed["notes"].startswith("failed: ")


def test_faults_of_a_measurement_are_noted(make_record: MakeRecord) -> None:
    record = make_record()
    spoiled = [
        replace(
            m,
            steady=False,
            throttled=(True,),
            telemetry=Telemetry(throttle_reasons=("hardware slowdown",), memory_bytes=5, other_processes=2),
        )
        for m in record.measurements
    ]
    (row,) = rows(latency_section([replace(record, measurements=tuple(spoiled))]))
    assert "not steady after warm-up" in row["notes"]
    assert "throttled in 1 of 1 windows (hardware slowdown)" in row["notes"]
    assert "2 other processes on the GPU" in row["notes"]


def test_padding_is_noted_if_there_is_any(make_record: MakeRecord) -> None:
    notes = {"tokens": "text", "shapes": {"2x16": {"tokens": 8, "cut": 0}}}
    (row,) = rows(latency_section([make_record(artifacts={"inputs": {"notes": notes}})]))
    assert row["padding"] == "75%"
    (row,) = rows(latency_section([make_record()]))
    assert "padding" not in row


def test_rows_show_the_option_in_which_they_differ(make_record: MakeRecord) -> None:
    fused, unfused = (make_record(options={"fusion": fusion, "threads": 0}) for fusion in ("on", "off"))
    notes = [row["notes"] for row in rows(latency_section([fused, unfused]))]
    assert sorted(note.split("; ")[-1] for note in notes) == ["fusion=off", "fusion=on"]
    assert not any("threads" in note for note in notes)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"profiles": "per_shape", "opt": [8, 64], "max": [8, 64]}, "per_shape"),
        ({"profiles": "dynamic", "opt": [8, 64], "max": [8, 64]}, "dynamic 1x16..8x64"),
        ({"profiles": "buckets", "opt": [4, 32], "max": [8, 64]}, "buckets 1x16..8x64, opt 4x32"),
    ],
)
def test_the_row_names_its_profile(options: dict[str, object], shown: str, make_record: MakeRecord) -> None:
    other = make_record(options={"profiles": "per_shape", "min": [1, 1], "opt": [1, 1], "max": [1, 1]}, backend="trt")
    record = make_record(options={"min": [1, 16], **options}, backend="trt")
    shown_rows = [
        row for row in rows(latency_section([record, other])) if f"profiles {shown}" in row["notes"].split("; ")
    ]
    assert shown_rows
    assert not any(name in row["notes"] for row in shown_rows for name in ("max=", "opt=", "min="))


def scores(**changes: object) -> dict[str, object]:
    defaults = {"metric": "spearman", "value": 0.81, "difference": -0.002, "nonfinite": 0, "tolerance": 0.01}
    return {**defaults, **changes}


def accuracy(make_record: MakeRecord, task: str = "stsb", **changes: object) -> Record:
    task_scores = scores(**changes)
    return make_record(suite="accuracy", shapes=((8, 64),), lengths={"task": task}, measurements=(), scores=task_scores)


def test_the_fastest_row_and_rows_that_tie_with_it_are_marked(make_record: MakeRecord) -> None:
    slow = make_record(samples=(2_000_000,) * 20)
    quick, as_quick = make_record(backend="quick"), make_record(backend="as-quick")
    notes_of = {row["backend"]: row["notes"] for row in rows(latency_section([slow, quick, as_quick]))}
    assert [name for name, notes in notes_of.items() if "**fastest**" in notes] == ["as-quick", "quick"]
    assert "**fastest**" not in latency_section([slow])


@pytest.mark.parametrize(("cosine", "valid"), [(0.995, True), (0.98, False)])
def test_outputs_that_depend_on_the_shape_are_invalid(cosine: float, valid: bool, make_record: MakeRecord) -> None:
    record = make_record(shapes=((2, 16), (1, 16)), precision="int8")
    elsewhere = tuple(replace(check, batch=1) for check in record.checks)
    here = tuple(replace(check, cosine=cosine) for check in record.checks)
    (row,) = rows(latency_section([replace(record, checks=here + elsewhere)]))
    says = f"**invalid**: outputs depend on the shape: cosine {cosine:.4f}, 1.0000 at 1x16"
    assert (says not in row["notes"]) == valid


def test_the_latency_table_shows_accuracy_and_a_loss_invalidates_the_row(make_record: MakeRecord) -> None:
    quick, exact = make_record(), make_record(backend="exact", samples=(2_000_000,) * 20)
    good = accuracy(make_record)
    table = latency_tables([quick, exact], [good, accuracy(make_record, "banking77", value=0.5, difference=0.001)])
    row_of = {row["backend"]: row for row in rows(table)}
    assert (row_of["null"]["stsb"], row_of["null"]["banking77"]) == ("0.8100 (-0.0020)", "0.5000 (+0.0010)")
    assert row_of["exact"]["stsb"] == ""
    assert row_of["null"]["notes"].startswith("**fastest**")
    row_of = {
        row["backend"]: row
        for row in rows(latency_tables([quick, exact], [good, accuracy(make_record, difference=-0.02)]))
    }
    assert row_of["null"]["notes"].endswith("**invalid**: stsb: spearman falls by 0.0200, more than 0.01")
    assert "**fastest**" not in row_of["null"]["notes"]
    row_of = {row["backend"]: row for row in rows(latency_tables([quick], [accuracy(make_record, nonfinite=2)]))}
    assert row_of["null"]["stsb"] == "NaN"
    assert "**invalid**: stsb: 2 outputs are NaN or Inf" in row_of["null"]["notes"]


def notes(make_record: MakeRecord, quick: Record, *judged: Record) -> str:
    """Return the notes of `quick` next to a slower row, after it was scored."""
    slow = make_record(backend="slow", samples=(2_000_000,) * 20)
    return next(row["notes"] for row in rows(latency_tables([quick, slow], judged)) if row["backend"] == "null")


def test_a_score_of_nan_is_a_loss(make_record: MakeRecord) -> None:
    """Constant embeddings have no rank: their score is NaN, and every comparison with NaN is false."""
    nothing = float("nan")
    row_notes = notes(make_record, make_record(), accuracy(make_record, value=nothing, difference=nothing))
    assert "**invalid**: stsb: spearman is nan" in row_notes
    assert "**fastest**" not in row_notes


@pytest.mark.parametrize(("outcome", "blocks"), [("failed", True), ("timeout", True), ("unsupported", False)])
def test_a_failed_task_invalidates_the_rows_that_it_scores(outcome: str, blocks: bool, make_record: MakeRecord) -> None:
    failed = replaced(accuracy(make_record), scores={}, outcome=outcome, reason="the session died")
    row_notes = notes(make_record, make_record(), failed)
    assert (f"**invalid**: stsb: {outcome}: the session died" in row_notes) == blocks
    assert ("**fastest**" in row_notes) != blocks


@pytest.mark.parametrize(("precision", "floor"), [("fp16", 0.99), ("int8", 0.9)])
def test_a_row_too_far_from_fp32_for_its_precision_is_invalid(
    precision: str, floor: float, make_record: MakeRecord
) -> None:
    for cosine in (floor - 0.001, floor + 0.001):
        record = make_record(precision=precision)
        record = replace(record, checks=tuple(replace(check, cosine=cosine) for check in record.checks))
        row_notes = notes(make_record, record)
        assert ("**invalid**: cosine" in row_notes) == (cosine < floor)
        assert ("**fastest**" in row_notes) == (cosine >= floor)


@pytest.mark.parametrize("weights", ["random (seed 0)", "trained"])
@pytest.mark.parametrize("output", ["score", "logits", "embedding"])
@pytest.mark.parametrize("cosines", [(0.5, 0.5), (0.95, 1.0)])
def test_an_invalid_cosine_of_a_random_head_says_that_scores_are_near_zero(
    weights: str, output: str, cosines: tuple[float, float], make_record: MakeRecord
) -> None:
    shapes = ((1, 16), (1, 32))
    record = make_record(precision="int8", weights=weights, options={"output": output}, shapes=shapes)
    checks = (Check(*shape, True, 0, cosine) for shape, cosine in zip(shapes, cosines, strict=True))
    found = problems(replace(record, checks=tuple(checks)), {shapes[0]}, {})
    assert "cosine" in found[0]
    random = output != "embedding" and weights != "trained"
    assert found[1:] == (["random weights give scores near zero; measure trained weights to decide"] if random else [])
    assert problems(replace(record, checks=(Check(1, 16, True, 0, 0.95),)), {shapes[0]}, {}) == []


def test_drift_alone_does_not_invalidate_a_row(make_record: MakeRecord) -> None:
    drift = accuracy(make_record, "sentences", metric="rank agreement", difference=-0.0133, gates=False)
    row_notes = notes(make_record, make_record(), drift)
    assert "**invalid**" not in row_notes
    assert row_notes.startswith("**fastest**")


@pytest.mark.parametrize(
    ("precision", "changes", "paired"),
    [
        ("int8", {"texts": "one", "seed": 0}, True),
        ("int8", {"texts": "other", "seed": 0}, False),
        ("int8", {"texts": "one", "seed": 1}, False),
        ("fp16", {"texts": "other", "seed": 1}, True),
    ],
)
def test_accuracy_belongs_to_the_timed_cell(
    precision: str, changes: dict[str, object], paired: bool, make_record: MakeRecord
) -> None:
    lengths = {"distribution": "full", "tokens": "auto", "texts": "one", "seed": 0}
    timed = make_record(precision=precision, lengths=lengths)
    judged = make_record(
        precision=precision, suite="accuracy", measurements=(), lengths={**lengths, "task": "stsb", **changes},
        scores=scores(),
    )  # fmt: skip
    (row,) = rows(latency_tables([timed], [judged]))
    assert ("stsb" in row) == paired


def test_profiles_affect_the_outputs_of_int8(make_record: MakeRecord) -> None:
    for precision, paired in (("int8", False), ("fp16", True)):
        timed, judged = (
            make_record(precision=precision, suite=suite, lengths={"distribution": "full", "task": "stsb"},
                        options={"profiles": profiles, "min": [1, 1], "opt": [1, 1], "max": [1, 1]}, scores=worth)
            for suite, profiles, worth in (("latency", "per_shape", {}), ("accuracy", "dynamic", scores()))
        )  # fmt: skip
        (row,) = rows(latency_tables([timed], [judged]))
        assert ("stsb" in row) == paired


def test_rows_with_other_calibration_texts_are_marked(make_record: MakeRecord) -> None:
    lengths = {"distribution": "full", "tokens": "auto", "seed": 0}
    timed = [
        make_record(precision="int8", lengths={**lengths, "texts": texts}) for texts in ("0123456789", "abcdef0123")
    ]
    judged = make_record(
        precision="int8", suite="accuracy", lengths={**lengths, "texts": "abcdef0123", "task": "stsb"}, scores=scores()
    )
    row_notes = sorted(row["notes"] for row in rows(latency_tables(timed, [judged])))
    assert "calibrated on=stsb" in row_notes[0]
    assert "calibrated on=texts 012345" in row_notes[1]
    given = make_record(precision="int8", lengths={**lengths, "texts": "abcdef0123", "calibration": "mine.txt"})
    assert "calibrated on=mine.txt" in latency_tables([*timed, given], [judged])
