"""Rules of CONTRIBUTING.md that can be checked in the source."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from backends.registry import descriptions

SOURCES = sorted([*(ROOT / "suites").rglob("*.py"), *(ROOT / "backends").rglob("*.py")])
SUITES = ("accuracy", "latency", "layers", "switching")
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
        importlib.import_module(".".join(relative.parts).removesuffix(".__init__"))
    except ModuleNotFoundError as error:
        if error.name != "tensorrt" or "tensorrt_" not in path.parts:
            raise
        pytest.skip("TensorRT is not installed here")


def test_backends_never_import_suites() -> None:
    assert [path.name for path in SOURCES if top_folder(path) == "backends" and "suites" in imports(path)] == []


def test_suites_name_no_framework() -> None:
    vendors = {"torch", "transformers", "onnx", "onnxruntime", "tensorrt", "cuda"}
    assert [path.name for path in SOURCES if top_folder(path) == "suites" and vendors & set(imports(path))] == []


def test_init_files_are_empty() -> None:
    """backends/__init__.py only makes folders of other parties on PYTHONPATH part of the package."""
    written = {path.parent.name for path in SOURCES if path.name == "__init__.py" and path.read_text()}
    assert written == {"backends"}


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
        "measuring/clock.py",
        "backends/cache.py",
        "build/progress.py",
    }


def test_no_test_reads_a_clock() -> None:
    """An assertion on wall-clock time fails on a busy machine. Use `simulated` or `wait_until` of conftest instead."""
    assert modules_that_read_clocks((ROOT / "tests").rglob("*.py")) == set()


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}


def imported_at_start(module: str) -> set[str]:
    """Modules that importing `module` imports at once: not those of functions, and not those for type checkers."""
    names: set[str] = set()
    statements = list(ast.parse(MODULES[module].read_text()).body)
    for node in statements:
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
            statements += node.body
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inner & set(MODULES) or {node.module}
    return names


def closure(module: str) -> tuple[set[str], set[str]]:
    """The project's modules that importing `module` imports, directly or not, and the packages of others."""
    own, others, waiting = set(), set(), [module]
    while waiting:
        name = waiting.pop()
        if name in MODULES:
            if name not in own:
                own.add(name)
                waiting += imported_at_start(name)
        else:
            others.add(name.split(".")[0])
    return own, others


WORKER = ("suites.worker", "suites.switching.cold_start", *(f"suites.{suite}.measure" for suite in SUITES))


@pytest.mark.parametrize("module", WORKER)
def test_a_worker_imports_numpy_and_the_standard_library_alone(module: str) -> None:
    own, others = closure(module)
    assert others <= {*sys.stdlib_module_names, "numpy"}
    for name in own:
        ast.parse(MODULES[name].read_text(), feature_version=(3, 10))


@pytest.mark.parametrize("backend", sorted(descriptions()))
def test_a_backend_imports_numpy_and_the_standard_library_until_it_works(backend: str) -> None:
    """A probe imports its backend in any interpreter, before it is known whether the vendor is installed."""
    own, others = closure(descriptions()[backend].factory.partition(":")[0])
    assert others <= {*sys.stdlib_module_names, "numpy"}
    for name in own:
        ast.parse(MODULES[name].read_text(), feature_version=(3, 10))


def test_tensorrt_is_used_with_numpy_and_its_own_libraries_alone() -> None:
    for name in MODULES:
        if name.startswith("backends.tensorrt_"):
            assert closure(name)[1] <= {*sys.stdlib_module_names, "numpy", "tensorrt", "cuda"}, name


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
