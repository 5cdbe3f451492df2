"""Rules of CONTRIBUTING.md that can be checked in the source."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT

SOURCES = sorted([*(ROOT / "suites").rglob("*.py"), *(ROOT / "backends").rglob("*.py")])
WORKER_SIDE = (
    "worker", "latency", "accuracy", "layers", "switching", "switching_changes", "switching_parity",
    "switching_workload", "traffic", "checks", "clock", "request_clock", "placeholder", "record", "cell",
    "process_tree",
)  # fmt: skip
CLOCKS = {"time", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time"}


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def top_folder(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_module_imports(path: Path) -> None:
    relative = path.relative_to(ROOT).with_suffix("")
    if relative.name == "cuda":
        pytest.importorskip("cuda.bindings.runtime")
    try:
        importlib.import_module(".".join(relative.parts))
    except ModuleNotFoundError as error:
        if error.name != "tensorrt" or path.parent.name != "tensorrt_":
            raise
        pytest.skip("TensorRT is not installed here")


def test_backends_never_import_suites() -> None:
    assert [path.name for path in SOURCES if top_folder(path) == "backends" and "suites" in imports(path)] == []


def test_suites_name_no_framework() -> None:
    vendors = {"torch", "transformers", "onnx", "onnxruntime", "tensorrt", "cuda"}
    assert [path.name for path in SOURCES if top_folder(path) == "suites" and vendors & set(imports(path))] == []


def test_init_files_are_empty() -> None:
    assert {path.read_text() for path in SOURCES if path.name == "__init__.py"} == {""}


def modules_that_read_clocks(paths: Iterable[Path]) -> set[str]:
    readers = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            is_attribute = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if is_attribute and node.value.id == "time" and node.attr in CLOCKS:
                readers.add(f"{path.parent.name}/{path.name}")
    return readers


def test_only_the_clock_reads_a_clock() -> None:
    """The build seconds of an artifact, in total and per phase, are the exception; sessions and suites read no
    clock."""
    assert modules_that_read_clocks(SOURCES) == {
        "suites/measuring/clock.py",
        "backends/cache.py",
        "tensorrt_/progress.py",
    }


def test_no_test_reads_a_clock() -> None:
    """An assertion on wall-clock time fails on a busy machine. Use `simulated` or `wait_until` of conftest instead."""
    assert modules_that_read_clocks((ROOT / "tests").glob("*.py")) == set()


def test_the_worker_side_starts_on_python_310_with_numpy_alone() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "backends", "suites"}
    tensorrt = sorted((ROOT / "backends" / "tensorrt_").glob("*.py"))
    worker_side = [ROOT / "suites" / f"{name}.py" for name in WORKER_SIDE]
    own = "base cache cache_files checkpoint evaluation features input_sets inputs null ort packing pytorch"
    own += " pytorch_packed readout stream weights"
    worker_side += [ROOT / "backends" / f"{name}.py" for name in own.split()]
    for path in [*worker_side, *tensorrt]:
        ast.parse(path.read_text(), feature_version=(3, 10))
        vendor = {"tensorrt", "cuda"} if path in tensorrt else set()
        assert set(imports(path, top_level_only=True)) <= allowed | vendor, path
    assert {path.stem for path in tensorrt if not {"tensorrt"} & set(imports(path, top_level_only=True))} >= {
        "native",
        "capabilities",
        "profiles",
    }


def test_every_call_that_opens_text_names_its_encoding() -> None:
    """The result must not depend on the locale."""
    without_encoding = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _opens_text(node):
                without_encoding.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert without_encoding == []


def _opens_text(call: ast.Call) -> bool:
    """Return whether a call opens text or a text pipe without naming an encoding."""
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if "encoding" in named:
        return False
    if name in ("run", "Popen", "check_output"):
        return bool({"text", "universal_newlines"} & set(named))
    if name in ("open", "fdopen"):
        modes = [*call.args, *named.values()]
        words = {node.value for node in modes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        # Sessions and libraries also have methods of this name. They take arguments, but no mode.
        mode = next((word for word in words if set(word) <= set("rwxabt+")), "")
        on_a_path = isinstance(call.func, ast.Attribute) and not call.args
        return "b" not in mode and (bool(mode) or on_a_path or name == "fdopen" or isinstance(call.func, ast.Name))
    return name in ("read_text", "write_text")
