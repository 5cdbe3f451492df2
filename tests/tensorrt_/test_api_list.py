"""The script that lists the names of a TensorRT release."""

from __future__ import annotations

import collections
import subprocess
from collections import Counter
from enum import Enum
from types import SimpleNamespace

import pytest
from conftest import PYTHON_WITH_TENSORRT, ROOT
from tensorrt_api.make import api_lines, compiled_module

SCRIPT = ROOT / "tests" / "tensorrt_api" / "make.py"


def test_a_list_has_members_in_order_and_attributes_by_name() -> None:
    module = SimpleNamespace(
        Flag=Enum("Flag", ["SECOND", "FIRST"]),
        Builder=type("Builder", (), {"zeta": 1, "alpha": lambda self: None, "_hidden": 2}),
        empty=object(),
        _private=int,
    )
    assert list(api_lines(module)) == ["Builder: alpha, zeta", "Flag: SECOND, FIRST", "empty:"]


def test_the_names_are_those_of_the_module_that_defines_the_classes() -> None:
    assert compiled_module(SimpleNamespace(Builder=Counter)) is collections


def test_the_list_of_the_installed_tensorrt_rtx_is_the_committed_one() -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    release = ".".join(rtx.__version__.split(".")[:3])
    committed = SCRIPT.with_name(f"rtx-{release}.txt")
    if not committed.exists():
        pytest.skip(f"there is no list of TensorRT-RTX {release}")
    assert [*api_lines(compiled_module(rtx))] == committed.read_text().splitlines()


@pytest.mark.skipif(not PYTHON_WITH_TENSORRT, reason="no Python with TensorRT is named")
def test_the_list_of_the_installed_release_is_the_committed_one() -> None:
    version = subprocess.run(
        [PYTHON_WITH_TENSORRT, "-c", "import tensorrt; print(tensorrt.__version__)"],
        text=True, capture_output=True, check=True,
    ).stdout.strip()  # fmt: skip
    committed = SCRIPT.with_name(f"{version}.txt")
    if not committed.exists():
        pytest.skip(f"there is no list of TensorRT {version}")
    made = subprocess.run([PYTHON_WITH_TENSORRT, str(SCRIPT)], text=True, capture_output=True, check=True).stdout
    assert made == committed.read_text()
