"""Names of kernels of equal layers become one name."""

from __future__ import annotations

import pytest

from backends.kernel_times import KernelTime
from suites.kernels.layer_names import LONGEST, kernels_of_all_layers, shortened


def test_equal_kernels_of_all_layers_are_one_row() -> None:
    kernels = [KernelTime("0/up", 10), KernelTime("0/down", 25), KernelTime("11/up", 30, count=2)]
    assert kernels_of_all_layers(kernels) == [KernelTime("*/up", 40, count=3), KernelTime("*/down", 25)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/encoder/layer.3/attention/self/query/MatMul", "/encoder/layer.*/attention/self/query/MatMul"),
        ("/layers.11/mlp/Wi/MatMul", "/layers.*/mlp/Wi/MatMul"),
        ("1/up + PWN((Unnamed Layer* 26) [Constant])", "*/up + PWN([Constant])"),
        ("sm90_xmma_gemm_f16f16_tilesize128x128x64", "sm90_xmma_gemm_f16f16_tilesize128x128x64"),
    ],
)
def test_only_numbers_of_layers_are_replaced(name: str, expected: str) -> None:
    assert [kernel.name for kernel in kernels_of_all_layers([KernelTime(name, 1)])] == [expected]


def test_kernels_of_different_operators_stay_apart() -> None:
    kernels = [KernelTime("0/x", 1, "MatMul"), KernelTime("1/x", 2, "Add")]
    assert kernels_of_all_layers(kernels) == [KernelTime("*/x", 2, "Add"), KernelTime("*/x", 1, "MatMul")]


def test_a_long_name_is_cut() -> None:
    assert shortened("x" * LONGEST) == "x" * LONGEST
    assert shortened("x" * (LONGEST + 1)) == "x" * (LONGEST - 3) + "..."
