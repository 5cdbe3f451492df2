"""Resolved options of an engine of plugins, and refusals of unsupported lengths, sizes and types."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from test_tensorrt_plugin import spec

from backends.base import BuildSpec, Shape, Unsupported
from backends.tensorrt_.plugins.plugin_choices import (
    Choices,
    check_exclusions,
    check_padded,
    check_sizes,
    choices_of,
    scale_max,
)


@pytest.mark.parametrize(
    ("choice", "qkv_range", "on"),
    [("auto", 21.9, True), ("auto", 22.0, False), ("on", 50.0, True), ("off", 1.0, False)],
)
def test_scale_max_is_on_if_the_range_is_small(choice: str, qkv_range: float, on: bool) -> None:
    assert scale_max(choice, qkv_range) is on


@pytest.mark.parametrize(
    ("requested", "hidden", "types"),
    [
        (spec("int8"), 768, ("int8", "int8")),
        (spec("int8"), 384, ("int8", "fp16")),
        (spec("int8", attention="fp16"), 768, ("fp16", "int8")),
        (spec("int8", layout="fixed"), 768, ("int8", "int8")),
        (spec("int8", layout="fixed", profiles="dynamic", max=[8, 256]), 768, ("fp16", "int8")),
        (spec("fp16"), 768, ("fp16", "fp16")),
        (spec("fp32", layout="fixed"), 768, ("fp32", "fp32")),
    ],
)
def test_int8_is_used_only_with_kernels_for_it(requested: BuildSpec, hidden: int, types: tuple[str, str]) -> None:
    notes = choices_of(requested, hidden).notes()
    assert (notes["attention"], notes["norms"]) == types


@pytest.mark.parametrize(
    ("requested", "flat"),
    [
        (spec("fp16"), True),
        (spec("fp16", flat_gelu="off"), False),
        (spec("fp16", gelu="plugin"), False),
        (spec("fp16", constraints="obey"), False),
        (spec("fp16", gelu="cubic"), False),
        (spec("fp16", products="convolution"), False),
        (spec("fp16", products="convolution", flat_gelu="on"), True),
        (spec("fp16", layout="fixed"), False),
        (spec("int8"), False),
    ],
)
def test_gelu_is_flat_where_it_is_a_kernel_of_its_own(requested: BuildSpec, flat: bool) -> None:
    choices = choices_of(requested, 768)
    assert (choices.flat_gelu, choices.notes().get("flat_gelu", False)) == (flat, flat)


@pytest.mark.parametrize(
    ("requested", "gelu_and_products"),
    [
        (spec("fp16"), ("sigmoid", "matmul")),
        (spec("fp16", gelu="cubic"), ("cubic", "convolution")),
        (spec("fp16", gelu="cubic", layout="fixed"), ("cubic", "matmul")),
        (spec("fp16", products="convolution"), ("sigmoid", "convolution")),
        (spec("int8"), ("cubic", "convolution")),
        (spec("int8", gelu="erf"), ("erf", "convolution")),
        (spec("fp32", layout="fixed"), ("erf", "matmul")),
    ],
)
def test_gelu_and_products_are_the_fastest_within_the_precision(
    requested: BuildSpec, gelu_and_products: tuple[str, str]
) -> None:
    choices = choices_of(requested, 384)
    assert (choices.gelu, choices.products) == gelu_and_products


@pytest.mark.parametrize(
    ("precision", "sequences", "attention", "sequence", "unfused"),
    [
        ("int8", (128,), "int8", 128, []),
        ("int8", (128, 384), "fp16", -1, []),
        ("int8", (64,), "fp16", 64, []),
        ("fp16", (64, 96), "fp16", -1, []),
        ("fp16", (100, 128), "fp16", -1, ["4x100"]),
        ("fp32", (128,), "fp32", 128, ["4x128"]),
    ],
)
def test_profiles_with_unfused_padded_attention_are_noted(
    precision: str, sequences: tuple[int, ...], attention: str, sequence: int, unfused: list[str]
) -> None:
    requested = replace(spec(precision, layout="fixed"), shapes=tuple(Shape(4, length) for length in sequences))
    choices = choices_of(requested, 384)
    assert (choices.sequence, choices.notes()["attention"], choices.notes()["attention_unfused"]) == (
        sequence, attention, unfused,
    )  # fmt: skip
    assert choices.products == ("convolution" if precision == "int8" else "matmul")


@pytest.mark.parametrize(
    ("precision", "options", "sequences", "message"),
    [
        ("fp16", {}, (512,), "wrong numbers at 512 tokens, a length in profile 4x512"),
        ("fp16", {"profiles": "dynamic", "max": [8, 600], "opt": [8, 128]}, (128,), "wrong numbers at 512"),
        ("int8", {}, (512,), "wrong numbers at 512"),
        ("int8", {"attention": "int8"}, (128, 384), "needs one sequence length, 128 or 384"),
        ("int8", {"attention": "int8"}, (256,), "needs one sequence length, 128 or 384"),
        ("fp16", {}, (384, 600), ""),
        ("fp32", {}, (512,), ""),
        ("fp16", {"layout": "packed"}, (512,), ""),
    ],
)
def test_padded_attention_is_refused_where_it_is_wrong(
    precision: str, options: dict[str, Any], sequences: tuple[int, ...], message: str
) -> None:
    shapes = tuple(Shape(4, length) for length in sequences)
    with pytest.raises(Unsupported, match=message) if message else nullcontext():
        check_padded(replace(spec(precision, **{"layout": "fixed", **options}), shapes=shapes))


@pytest.mark.parametrize(
    ("interleaved", "packed", "excluded", "message"),
    [
        (False, True, ["0/attention"], ""),
        (True, True, ["0/up"], "tensors are all INT8"),
        (False, False, ["0/up"], ""),
        (False, False, ["0/attention"], "one mask for all layers"),
    ],
)
def test_exclusions_from_int8_without_kernels_are_refused(
    interleaved: bool, packed: bool, excluded: list[str], message: str
) -> None:
    choices = Choices(packed, interleaved, True, "convolution", "erf", True, True, 128)
    with pytest.raises(Unsupported, match=message) if message else nullcontext():
        check_exclusions(choices, excluded)


@pytest.mark.parametrize(
    ("positions", "hidden", "message"),
    [(384, 768, ""), (385, 768, "stops at 384 tokens"), (128, 384, "hidden sizes 768 and 1024, not 384")],
)
def test_sizes_without_interleaved_kernels_are_refused(positions: int, hidden: int, message: str) -> None:
    choices = Choices(True, True, True, "convolution", "erf", True, True, positions)
    with pytest.raises(Unsupported, match=message) if message else nullcontext():
        check_sizes(choices, 512, hidden)
