"""What rows say of their options, and what is said once for all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from suites.record import Record
from suites.tables.options import CAPTION, distinctions, sources_of

MakeRecord = Callable[..., Record]
Options = dict[str, object]


def made(make_record: MakeRecord, *options: Options, **cell: object) -> list[Record]:
    return [make_record(options=one, **cell) for one in options]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([{"fusion": "on", "threads": 0}, {"fusion": "off", "threads": 0}], ["fusion=on", "fusion=off"]),
        ([{"rewrites": []}, {"rewrites": ["merged_qkv", "other"]}], ["", "rewrites=merged_qkv+other"]),
        ([{"quantization": {}}, {"quantization": {"tokens": "random"}}], ["", "quantization.tokens=random"]),
        ([{"profiles": "dynamic"}, {"profiles": "per_shape"}], ["", ""]),
        ([{"level": 3}] * 3 + [{"level": 5}], ["", "", "", "level=5"]),
        ([{"level": 3}] * 3 + [{}], ["", "", "", "level unset"]),
        ([{}] * 3 + [{"level": 5}], ["", "", "", "level=5"]),
        ([{"level": 3}] * 2 + [{"level": 5}] * 2, ["level=3", "level=3", "level=5", "level=5"]),
        ([{"level": 3}] * 3 + [{"level": 5}] * 3, ["level=3"] * 3 + ["level=5"] * 3),
    ],
)
def test_a_row_says_what_is_not_usual(options: list[Options], said: list[str], make_record: MakeRecord) -> None:
    records = made(make_record, *options)
    told = distinctions(records)
    assert [told.of(record) for record in records] == said


def test_what_most_rows_share_is_said_once(make_record: MakeRecord) -> None:
    records = made(make_record, *[{"level": 3, "sources": "all", "kept": "yes"}] * 3, {"level": 5, "kept": "yes"})
    assert distinctions(records).caption() == ["", CAPTION, "", "- null fp32: level=3, sources=all"]
    assert distinctions(records[:3]).caption() == []


def test_options_are_compared_within_a_backend_and_precision(make_record: MakeRecord) -> None:
    others = made(make_record, {"attention": "int8"}, {"attention": "fp16"}, precision="int8")
    (one,) = made(make_record, {"attention": "int8"}, precision="fp16")
    told = distinctions([one, *others])
    assert told.of(one) == ""
    assert [told.of(other) for other in others] == ["attention=int8", "attention=fp16"]


def test_models_of_one_name_are_told_apart(make_record: MakeRecord) -> None:
    (one,), (other,) = (made(make_record, {}, model_version=version) for version in ("0123456789abcdef", "hub@main"))
    assert [distinctions([one, other]).of(record) for record in (one, other)] == [
        "model_version=01234567",
        "model_version=hub@main",
    ]
    assert distinctions([one, one]).of(one) == ""


def test_texts_are_called_by_their_file_or_else_by_the_task_whose_own_they_are(make_record: MakeRecord) -> None:
    def calibrated(texts: str, **lengths: str) -> Record:
        return make_record(precision="int8", lengths={"distribution": "full", "texts": texts, **lengths})

    named, own, unknown = (
        calibrated("1" * 8, calibration="mine.txt", task="stsb"),
        calibrated("2" * 8, task="stsb"),
        "3",
    )
    sources = sources_of([named, own])
    records = [calibrated(texts * 8) for texts in ("1", "2", unknown)]
    told = distinctions(records, sources=sources)
    assert [told.of(record) for record in records] == [
        "calibrated on=mine.txt",
        "calibrated on=stsb",
        "calibrated on=texts 333333",
    ]


def test_options_with_a_column_of_their_own_are_left_to_it(make_record: MakeRecord) -> None:
    records = made(make_record, {"layout": "packed", "level": 3}, {"layout": "fixed", "level": 5})
    assert [distinctions(records, ("layout",)).of(record) for record in records] == ["level=3", "level=5"]
