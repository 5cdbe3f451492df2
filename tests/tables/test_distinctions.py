"""Options in tables: those shown in a row, and those shown once for all rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from suites.records.record import Record
from suites.tables.distinctions import CAPTION, distinctions, sources_of

MakeRecord = Callable[..., Record]
Options = dict[str, object]


def made(make_record: MakeRecord, *options: Options, **cell: object) -> list[Record]:
    return [make_record(options=values, **cell) for values in options]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([{"fusion": "on", "threads": 0}, {"fusion": "off", "threads": 0}], ["fusion=on", "fusion=off"]),
        ([{"rewrites": []}, {"rewrites": ["merged_qkv", "other"]}], ["", "rewrites=merged_qkv+other"]),
        ([{"quantization": {}}, {"quantization": {"tokens": "random"}}], ["", "quantization.tokens=random"]),
        ([{"provider": "openvino"}], ["provider=openvino"]),
        ([{"profiles": "dynamic"}, {"profiles": "per_shape"}], ["", ""]),
        ([{"level": 3}] * 3 + [{"level": 5}], ["", "", "", "level=5"]),
        ([{"level": 3}] * 3 + [{}], ["", "", "", "level unset"]),
        ([{}] * 3 + [{"level": 5}], ["", "", "", "level=5"]),
        ([{"level": 3}] * 2 + [{"level": 5}] * 2, ["level=3", "level=3", "level=5", "level=5"]),
        ([{"level": 3}] * 3 + [{"level": 5}] * 3, ["level=3"] * 3 + ["level=5"] * 3),
    ],
)
def test_a_row_shows_unusual_options(options: list[Options], said: list[str], make_record: MakeRecord) -> None:
    records = made(make_record, *options)
    texts = distinctions(records)
    assert [texts.of(record) for record in records] == said


def test_dynamic_quantization_differs_from_static_in_its_scheme_only(make_record: MakeRecord) -> None:
    static = {"scheme": "explicit", "method": "minmax", "samples": 64, "per_channel": True}
    dynamic = {"scheme": "dynamic", "per_channel": True}
    rows = [static, {**static, "method": "entropy"}, dynamic, {**dynamic, "per_channel": False}]
    records = made(make_record, *({"quantization": row} for row in rows), precision="int8")
    texts = distinctions(records)
    names = [texts.of(record).replace("quantization.", "") for record in records]
    assert names == [
        "scheme=explicit; method=minmax",
        "scheme=explicit; method=entropy",
        "scheme=dynamic",
        "scheme=dynamic; per_channel=False",
    ]


def test_options_that_most_rows_share_are_shown_once(make_record: MakeRecord) -> None:
    records = made(make_record, *[{"level": 3, "sources": "all", "kept": "yes"}] * 3, {"level": 5, "kept": "yes"})
    assert distinctions(records).caption() == ["", CAPTION, "", "- null fp32: level=3, sources=all"]
    assert distinctions(records[:3]).caption() == []


def test_options_are_compared_within_a_backend_and_precision(make_record: MakeRecord) -> None:
    others = made(make_record, {"attention": "int8"}, {"attention": "fp16"}, precision="int8")
    (half,) = made(make_record, {"attention": "int8"}, precision="fp16")
    texts = distinctions([half, *others])
    assert texts.of(half) == ""
    assert [texts.of(other) for other in others] == ["attention=int8", "attention=fp16"]


def test_models_with_equal_names_are_distinguished(make_record: MakeRecord) -> None:
    (first,), (other,) = (made(make_record, {}, model_version=version) for version in ("0123456789abcdef", "hub@main"))
    assert [distinctions([first, other]).of(record) for record in (first, other)] == [
        "model_version=01234567",
        "model_version=hub@main",
    ]
    assert distinctions([first, first]).of(first) == ""


def test_calibration_texts_are_named_after_their_file_or_their_task(make_record: MakeRecord) -> None:
    def calibrated(texts: str, **lengths: str) -> Record:
        return make_record(precision="int8", lengths={"distribution": "full", "texts": texts, **lengths})

    named, own, unknown = (
        calibrated("1" * 8, calibration="mine.txt", task="stsb"),
        calibrated("2" * 8, task="stsb"),
        "3",
    )
    sources = sources_of([named, own])
    records = [calibrated(texts * 8) for texts in ("1", "2", unknown)]
    shown = distinctions(records, sources=sources)
    assert [shown.of(record) for record in records] == [
        "calibrated on=mine.txt",
        "calibrated on=stsb",
        "calibrated on=texts 333333",
    ]


def test_options_with_their_own_column_are_not_repeated(make_record: MakeRecord) -> None:
    records = made(make_record, {"layout": "packed", "level": 3}, {"layout": "fixed", "level": 5})
    assert [distinctions(records, ("layout",)).of(record) for record in records] == ["level=3", "level=5"]
