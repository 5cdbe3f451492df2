"""Rules of CONTRIBUTING.md that can be checked in the source."""

from __future__ import annotations

import ast
import importlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path

import pytest
from conftest import ROOT

from backends.registry import descriptions

SOURCES = sorted([*(ROOT / "suites").rglob("*.py"), *(ROOT / "backends").rglob("*.py")])
SUITES = (
    "accuracy",
    "alignment",
    "building",
    "ceilings",
    "kernels",
    "latency",
    "launch",
    "layers",
    "limits",
    "serving",
    "switching",
    "tritonserver",
)
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


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}


def imported(module: str) -> set[str]:
    """Return the project's modules that `module` imports, also inside functions. Imports by name are not included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return (names & set(MODULES)) - {module}


def room_of(module: str) -> str:
    """Return the folder of a module. A module directly in suites/ or backends/ counts as a folder of its own."""
    package = MODULES[module].parent.relative_to(ROOT).as_posix()
    return package if "/" in package else module


def import_cycle(imports_by_room: Mapping[str, Set[str]]) -> list[str]:
    """Return folders that import each other, directly or not; empty if all imports point down."""
    remaining = {room: set(others) for room, others in imports_by_room.items()}
    while free := [room for room, others in remaining.items() if not others & set(remaining)]:
        for room in free:
            del remaining[room]
    return sorted(remaining)


def test_a_cycle_is_found() -> None:
    assert import_cycle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert import_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_imports_between_folders_point_down() -> None:
    """Registries that load modules by name are the exception: suites.tables.write_tables, backends.base."""
    rooms: dict[str, set[str]] = {}
    for module in MODULES:
        rooms.setdefault(room_of(module), set()).update(room_of(name) for name in imported(module))
    assert import_cycle({room: others - {room} for room, others in rooms.items()}) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_module_imports(path: Path) -> None:
    for vendor, package in (("cuda", "cuda.bindings.runtime"), ("triton", "triton")):
        if vendor in closure(module_of(path))[1]:
            pytest.importorskip(package)
    importlib.import_module(module_of(path))


def test_backends_never_import_suites() -> None:
    assert [path.name for path in SOURCES if top_folder(path) == "backends" and "suites" in imports(path)] == []


def test_suites_name_no_framework() -> None:
    vendors = {"torch", "transformers", "onnx", "onnxruntime", "tensorrt", "cuda"}
    assert [path.name for path in SOURCES if top_folder(path) == "suites" and vendors & set(imports(path))] == []
    of_vendors = ("backends.tensorrt_", "backends.torch_")
    suites = [module for module in MODULES if module.startswith("suites")]
    assert [module for module in suites if any(name.startswith(of_vendors) for name in imported(module))] == []


def test_init_files_are_empty() -> None:
    """Two files only add the backends and suites of other parties to the packages."""
    written = {path.parent.name for path in SOURCES if path.name == "__init__.py" and path.read_text()}
    assert written == {"backends", "suites"}


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


WORKER = (
    "suites.worker",
    "suites.diagnosis.survey",
    "suites.running.deploy_model",
    "suites.switching.cold_start",
    *(f"suites.{suite}.measure" for suite in SUITES),
)


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


def test_tensorrt_is_used_with_numpy_and_cuda_alone() -> None:
    """No module imports TensorRT itself when it is imported: tests give its code a fake."""
    for name in MODULES:
        if name.startswith("backends.tensorrt_"):
            assert closure(name)[1] <= {*sys.stdlib_module_names, "numpy", "cuda"}, name


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


CONVENTION = {"__init__.py", "request.py", "inputs.py", "measure.py", "result.py", "tables.py", "description.py",
              "suite.py"}  # fmt: skip
"""File names that several folders have."""


def test_a_file_name_occurs_once() -> None:
    names = Counter(path.name for path in SOURCES)
    assert [name for name, count in names.items() if count > 1 and name not in CONVENTION] == []


def test_the_name_of_a_test_file_occurs_once() -> None:
    """pytest imports them by their file names."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py"))
    assert [name for name, count in names.items() if count > 1] == []


MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 300, 59, 5

MANY_PARAMETERS = {"backends/onnx_/onnx_source.py:prepare_source", "suites/tasks/scoring.py:score"}
"""Functions with more than MOST_PARAMETERS, `self` and `cls` not counted. This list only shrinks: a test fails if an
entry is no longer needed."""


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield each function of the project, also nested ones, as "path:name"."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.relative_to(ROOT).as_posix()}:{node.name}", node


def parameters(function: ast.FunctionDef) -> int:
    listed = function.args
    names = [argument.arg for argument in (*listed.posonlyargs, *listed.args, *listed.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_files_are_short() -> None:
    long = {path.relative_to(ROOT).as_posix() for path in SOURCES if path.read_text().count("\n") > MOST_LINES}
    assert long == set()


def test_functions_are_short() -> None:
    long = {name for name, node in functions() if (node.end_lineno or 0) - node.lineno + 1 > MOST_FUNCTION_LINES}
    assert long == set()


def is_kernel(function: ast.FunctionDef) -> bool:
    """Return whether Triton compiles a function. Its parameters are numbers and addresses, not objects."""
    return any(ast.unparse(decorator) == "triton.jit" for decorator in function.decorator_list)


def test_functions_have_few_parameters() -> None:
    """A function that needs more values takes a dataclass."""
    many = {name for name, node in functions() if parameters(node) > MOST_PARAMETERS and not is_kernel(node)}
    assert many == MANY_PARAMETERS


USES_OF_ANY = {
    "backends/config_key.py": 1,  # the type as a value: a key that takes any value
    "backends/cuda.py": 2,  # results of cuda-python, which has no types
    "backends/green_contexts.py": 2,  # results of cuda-python
    "backends/interface_values.py": 1,  # dtype of an array
    "backends/json_codec.py": 1,  # the type as a value: a field that takes any value
    "backends/session_interface.py": 1,  # graphs of one session
    "backends/tensorrt_/equivalent_commands.py": 1,  # options of cells
    "backends/tensorrt_/run_plan.py": 2,  # results of cuda-python
    "backends/vendor_tools.py": 1,  # options of cells
    "suites/records/cell.py": 2,  # lengths and options of all suites, backends and versions
    "suites/running/deploy_model.py": 1,  # a function that is imported by its name
    "suites/running/jobs_by_stage.py": 1,  # jobs with answers of different types
    "suites/schema/config.py": 1,  # OmegaConf accepts no other type for JSON values
    "suites/schema/config_types.py": 1,  # the type as a value, as in backends/config_key.py
    "suites/data_out/data_row.py": 5,  # metadata of fields of different types
    "suites/data_out/frames.py": 1,  # a library that is optional
    "suites/switching/plot.py": 5,  # matplotlib, which is imported late
    "suites/worker.py": 1,  # functions of jobs of different types
}
"""Number of uses of `Any` by file, without imports. It only shrinks, like the list above."""


def uses_of_any(source: str) -> int:
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(ast.parse(source)))


def test_uses_of_any_are_counted() -> None:
    assert uses_of_any("from typing import Any\ndef f(x: dict[str, Any]) -> Any:\n    '''Any.'''\n") == 2


def test_few_types_are_any() -> None:
    """Use `object` for a value of unknown type, a Protocol, a TypedDict, or the type of a library."""
    counts = {path.relative_to(ROOT).as_posix(): uses_of_any(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {name: count for name, count in counts.items() if count} == USES_OF_ANY
