"""Reader of the names of TensorRT in source code; see test_tensorrt_api.py.

It recognizes expressions by their last name: `trt` and `….trt` are the module, `can` and `….can` the capabilities, and
a name in CLASSES, alone or after a dot, is an instance of that class.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from conftest import ROOT

from backends.tensorrt_.runtime.capabilities import Capabilities

CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "_network": "INetworkDefinition",
    "activation": "IActivationLayer",
    "joined": "IConcatenationLayer",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "error": "ParserError",
    "optimization_profile": "IOptimizationProfile",
    "layer": "ILayer",
    "attention": "IAttention",
    "norm": "INormalizationLayer",
    "cut": "ISliceLayer",
    "shuffle": "IShuffleLayer",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "context": "IExecutionContext",
    "_context": "IExecutionContext",
    "inspector": "EngineInspector",
    "registry": "IPluginRegistry",
    "tensor": "ITensor",
    "result": "ITensor",
    "reader": "Runtime",
    "runtime_config": "IRuntimeConfig",
    "runtime_cache": "IRuntimeCache",
    "identity": "IIdentityLayer",
    "timings": "ITimingCache",
    "others": "ITimingCache",
    "creator": "IPluginCreator",
}
"""Class of TensorRT by the name of a variable or attribute, the same in the whole folder."""


RETURNS = {"get_plugin_registry": "IPluginRegistry"}
"""Class that a function of the module returns. A class returns its own instance."""


MODULE, CAPABILITIES = "trt", "can"


def last_name(node: ast.AST) -> str:
    """Return the last name of `a` or `b.a`, and an empty text for another expression."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


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
        if isinstance(test, ast.Attribute) and last_name(test.value) == CAPABILITIES:
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
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(value, list):
                yield from self.body(value)
            else:
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        yield from self.names(child)

    @staticmethod
    def tensorrt(node: ast.Attribute) -> str:
        """Return the dotted TensorRT name of an attribute: of the module, or of a class by the instance's name."""
        match node.value:
            case value if last_name(value) == MODULE:
                return node.attr
            case ast.Attribute(value, name) if last_name(value) == MODULE:
                return f"{name}.{node.attr}"
            case ast.Call(ast.Attribute(value, function)) if last_name(value) == MODULE:
                return f"{RETURNS.get(function, function)}.{node.attr}"
            case value if last_name(value) in CLASSES:
                return f"{CLASSES[last_name(value)]}.{node.attr}"
        return ""


def missing_names(source: str, release: str) -> list[str]:
    """Return the names in `source` that `release` reaches and does not have, with their lines."""
    names = names_of(release)
    reader = Reader(Capabilities.where(lambda dotted: named(names, dotted)))
    reached = set(reader.body(ast.parse(source).body))
    return sorted(f"{name}, line {line}" for name, line in reached if not named(names, name) and "__" not in name)


def misused_names(tree: ast.Module, loads: bool = False) -> Iterator[tuple[int, str]]:
    """Yield each use of the module that is no access to an attribute, each other name of the module, and each value of
    `can` that is not an API's.

    Args:
        loads: whether the source may import TensorRT at run time.
    """
    for_types = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and last_name(node.test) == "TYPE_CHECKING"
        for child in node.body
    }
    allowed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target, value in assignments(node):
                if last_name(target) == last_name(value) == MODULE:
                    allowed |= {id(target), id(value)}
                if isinstance(target, ast.Name) and target.id == CAPABILITIES and last_name(value) != CAPABILITIES:
                    yield node.lineno, "can is assigned from something else"
        if isinstance(node, ast.Import):
            names = {alias.asname or alias.name for alias in node.names if alias.name.partition(".")[0] == "tensorrt"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tensorrt":
            names = {alias.asname or alias.name for alias in node.names}
        else:
            continue
        if names and id(node) not in for_types and not loads:
            yield node.lineno, "TensorRT is imported at run time"
        if names - {MODULE} and id(node) in for_types:
            yield node.lineno, "TensorRT has another name"
    for node in ast.walk(tree):
        is_field = loads and isinstance(getattr(node, "ctx", None), ast.Store)
        if last_name(node) == MODULE and id(node) not in allowed and not is_field:
            yield node.lineno, "the module is passed on or has another name"


def assignments(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield the pairs of `a = b` and of `a, b = c, d`."""
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=True)
        else:
            yield target, node.value
