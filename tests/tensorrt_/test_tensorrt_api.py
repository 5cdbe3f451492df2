"""Each name of TensorRT in backends/tensorrt_ must exist in every release that reaches its line.

tests/tensorrt_api has the names in the Python module of each release, as listed from its bindings. The lines that a
release reaches follow from its capabilities (backends/tensorrt_/runtime/capabilities.py) and the `if can.…` around a line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

from backends.tensorrt_.runtime.capabilities import Capabilities

FOLDER = sorted((ROOT / "backends" / "tensorrt_").glob("*.py"))
SOURCES = [path for path in FOLDER if "import tensorrt as trt" in path.read_text()]
RELEASES = sorted(path.stem for path in (ROOT / "tests" / "tensorrt_api").glob("*.txt"))
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "_network": "INetworkDefinition",
    "activation": "IActivationLayer",
    "joined": "IConcatenationLayer",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "error": "ParserError",
    "profile": "IOptimizationProfile",
    "layer": "ILayer",
    "attention": "IAttention",
    "norm": "INormalizationLayer",
    "cut": "ISliceLayer",
    "shuffle": "IShuffleLayer",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "inspector": "EngineInspector",
    "registry": "IPluginRegistry",
    "tensor": "ITensor",
    "result": "ITensor",
    "reader": "Runtime",
    "identity": "IIdentityLayer",
    "timings": "ITimingCache",
    "others": "ITimingCache",
    "creator": "IPluginCreator",
}
"""Class of TensorRT by the name of a variable or attribute, the same in the whole folder."""


RETURNS = {"get_plugin_registry": "IPluginRegistry"}
"""Class that a function of the module returns. A class returns its own instance."""


def names_of(release: str) -> Mapping[str, set[str]]:
    lines = (ROOT / "tests" / "tensorrt_api" / f"{release}.txt").read_text().splitlines()
    return {
        name: set(attributes.replace(",", " ").split())
        for name, _, attributes in (line.partition(":") for line in lines)
    }


def named(names: Mapping[str, set[str]], dotted: str) -> bool:
    first, _, second = dotted.partition(".")
    return first in names and (not second or second in names[first])


@dataclass(frozen=True)
class Reader:
    """Reader of the statements that a release reaches. It yields TensorRT names, "A" or "A.B", with line numbers."""

    can: Capabilities

    def evaluate(self, test: ast.expr) -> bool | None:
        """Return the value of a condition for this release, or None if its capabilities do not determine the value."""
        if isinstance(test, ast.Attribute) and isinstance(test.value, ast.Name) and test.value.id == "can":
            return bool(getattr(self.can, test.attr))
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inner = self.evaluate(test.operand)
            return None if inner is None else not inner
        if isinstance(test, ast.BoolOp):
            values = [self.evaluate(value) for value in test.values]
            decisive = isinstance(test.op, ast.Or)
            if decisive in values:
                return decisive
            return None if None in values else not decisive
        return None

    def body(self, statements: list[ast.stmt]) -> Iterator[tuple[str, int]]:
        for statement in statements:
            yield from self.names(statement)
            if isinstance(statement, ast.If):
                verdict = self.evaluate(statement.test)
                branch = statement.body if verdict else statement.orelse if verdict is False else []
                if branch and isinstance(branch[-1], ast.Return | ast.Raise | ast.Continue):
                    return

    def names(self, node: ast.AST) -> Iterator[tuple[str, int]]:
        if isinstance(node, ast.If | ast.IfExp):
            yield from self.names(node.test)
            verdict = self.evaluate(node.test)
            branches = [
                branch for branch, value in ((node.body, True), (node.orelse, False)) if verdict in (value, None)
            ]
            for branch in branches:
                yield from self.body(branch) if isinstance(branch, list) else self.names(branch)
            return
        if isinstance(node, ast.Attribute) and (dotted := self.tensorrt(node)):
            yield dotted, node.lineno
            return
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(value, list):
                yield from self.body(value)
            else:
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        yield from self.names(child)

    @staticmethod
    def tensorrt(node: ast.Attribute) -> str:
        """Return the dotted TensorRT name of an attribute: of the module, or of a class by the variable's name."""
        if isinstance(node.value, ast.Name) and node.value.id == "trt":
            return node.attr
        if isinstance(node.value, ast.Attribute) and isinstance(node.value.value, ast.Name):
            if node.value.value.id == "trt":
                return f"{node.value.attr}.{node.attr}"
            if node.value.value.id == "self" and node.value.attr in CLASSES:
                return f"{CLASSES[node.value.attr]}.{node.attr}"
        if isinstance(node.value, ast.Name) and node.value.id in CLASSES:
            return f"{CLASSES[node.value.id]}.{node.attr}"
        match node.value:
            case ast.Call(ast.Attribute(ast.Name("trt"), function)):
                return f"{RETURNS.get(function, function)}.{node.attr}"
        return ""


def missing_names(source: str, release: str) -> list[str]:
    """Return the names in `source` that `release` reaches and does not have, with their lines."""
    names = names_of(release)
    reader = Reader(Capabilities.where(lambda dotted: named(names, dotted)))
    reached = set(reader.body(ast.parse(source).body))
    return sorted(f"{name}, line {line}" for name, line in reached if not named(names, name) and "__" not in name)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_name_is_in_the_releases_that_reach_it(path: Path, release: str) -> None:
    assert missing_names(path.read_text(), release) == []


def test_there_is_a_list_for_each_generation_of_releases() -> None:
    assert RELEASES == ["10.16.1", "11.4.0", "8.6.0"]


def test_the_reader_finds_many_names() -> None:
    can = Capabilities.where(lambda dotted: named(names_of("8.6.0"), dotted))
    names = {name for path in SOURCES for name, _ in Reader(can).body(ast.parse(path.read_text()).body)}
    assert {"BuilderFlag.FP16", "IBuilderConfig.set_flag", "IExecutionContext.execute_async_v3"} <= names
    assert len(names) > 60


@pytest.mark.parametrize(
    ("source", "release", "missing"),
    [
        ("trt.BuilderFlag.FP16", "11.4.0", ["BuilderFlag.FP16, line 1"]),
        ("if can.weak_typing:\n trt.BuilderFlag.FP16", "11.4.0", []),
        ("if not can.weak_typing:\n trt.BuilderFlag.FP16", "11.4.0", ["BuilderFlag.FP16, line 2"]),
        ("def f():\n if not can.weak_typing or x:\n  return\n trt.BuilderFlag.FP16", "11.4.0", []),
        ("def f():\n if x and can.weak_typing:\n  return\n trt.BuilderFlag.FP16", "11.4.0",
         ["BuilderFlag.FP16, line 4"]),
        ("a = trt.BuilderFlag.BF16 if can.bfloat16 else 0", "8.6.0", []),
        ("a = trt.BuilderFlag.BF16 if can.weak_typing else 0", "8.6.0", ["BuilderFlag.BF16, line 1"]),
        ("self._engine.device_memory_size", "11.4.0", ["ICudaEngine.device_memory_size, line 1"]),
        ("class A(trt.IProgressMonitor): pass", "8.6.0", ["IProgressMonitor, line 1"]),
        ("config.no_such_thing = 1", "10.16.1", ["IBuilderConfig.no_such_thing, line 1"]),
        ("trt.get_plugin_registry().plugin_creator_list", "11.4.0", ["IPluginRegistry.plugin_creator_list, line 1"]),
        ("trt.Runtime(log).no_such()", "8.6.0", ["Runtime.no_such, line 1"]),
    ],
)  # fmt: skip
def test_names_that_a_release_reaches_and_lacks_are_listed(source: str, release: str, missing: list[str]) -> None:
    assert missing_names(source, release) == missing


@pytest.mark.parametrize(
    ("release", "has"),
    [
        ("8.6.0", {"explicit_batch", "weak_typing", "calibration", "memory_size_v1", "plugin_v2", "fully_connected"}),
        (
            "11.4.0",
            {
                "strong_typing",
                "bfloat16",
                "opset_19",
                "progress",
                "named_parser_errors",
                "plugin_v3",
                "packed_attention",
            },
        ),
    ],
)
def test_the_capabilities_of_a_release(release: str, has: set[str]) -> None:
    can = Capabilities.where(lambda dotted: named(names_of(release), dotted))
    assert {name for name, present in vars(can).items() if present} == has
