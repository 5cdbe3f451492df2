"""Each name of TensorRT in backends/tensorrt_ must exist in every release that reaches its line.

tests/tensorrt_api has the names in the Python module of each release, as listed from its bindings. The lines that a
release reaches follow from its capabilities (backends/tensorrt_/runtime/capabilities.py) and the `if can.…` around a
line.

api_reader.py recognizes the module, its capabilities and its instances by their names. Other tests make sure that the
source gives the module and the capabilities no other names.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from api_reader import CAPABILITIES, Reader, missing_names, misused_names, named, names_of
from conftest import ROOT

from backends.tensorrt_.runtime.capabilities import Capabilities

SOURCES = sorted(path for path in (ROOT / "backends" / "tensorrt_").rglob("*.py") if path.name != "__init__.py")
LOADERS = ("tensorrt_api.py", "run_plan.py")
"""The modules that import TensorRT: one makes the object with the module and its capabilities, the other is exported
with a plan and runs without the project."""

RTX = "rtx-1.7.1"
"""List of TensorRT-RTX, whose API is that of 11 with few differences."""

RELEASES = sorted(path.stem for path in (ROOT / "tests" / "tensorrt_api").glob("*.txt"))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_name_is_in_the_releases_that_reach_it(path: Path, release: str) -> None:
    assert missing_names(path.read_text(), release) == []


def test_there_is_a_list_for_each_generation_of_releases() -> None:
    assert RELEASES == ["10.16.1", "11.4.0", "8.6.0", RTX]


def names_in(release: str) -> set[str]:
    """Return the names that the sources use, on the lines that a release reaches."""
    can = Capabilities.where(lambda dotted: named(names_of(release), dotted))
    return {name for path in SOURCES for name, _ in Reader(can).body(ast.parse(path.read_text()).body)}


def test_the_names_in_use_that_tensorrt_rtx_has_and_11_lacks_are_those_of_named_targets_and_of_its_runtime() -> None:
    newest, used = names_of("11.4.0"), names_in(RTX)
    assert {name for name in used if "__" not in name and not named(newest, name)} == {
        "ComputeCapability",
        "CudaGraphStrategy",
        "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE",
        "DynamicShapesKernelSpecializationStrategy",
        "EngineInvalidityDiagnostics",
        "EngineValidity",
        "EngineValidity.INVALID",
        "IBuilderConfig.num_compute_capabilities",
        "IBuilderConfig.set_compute_capability",
        "IExecutionContext.is_stream_capturable",
        "IRuntimeCache.deserialize",
        "IRuntimeCache.serialize",
        "IRuntimeConfig.create_runtime_cache",
        "IRuntimeConfig.cuda_graph_strategy",
        "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
        "IRuntimeConfig.set_runtime_cache",
        "Runtime.get_engine_validity",
    }


def test_tensorrt_rtx_has_all_names_in_use_on_11_but_that_of_plugins() -> None:
    """Each graph and builder call of 11 can therefore be tried with TensorRT-RTX, which builds without a GPU."""
    used = {name for name in names_in("11.4.0") if "__" not in name}
    assert [name for name in sorted(used) if not named(names_of(RTX), name)] == ["INetworkDefinition.add_plugin_v3"]


def test_the_classes_that_differ_between_tensorrt_rtx_and_11() -> None:
    rtx, newest = names_of(RTX), names_of("11.4.0")
    assert rtx.keys() - newest.keys() == {
        "ComputeCapability",
        "CudaGraphStrategy",
        "DynamicShapesKernelSpecializationStrategy",
        "EngineInvalidityDiagnostics",
        "EngineValidity",
        "IRuntimeCache",
        "IWeightsManager",
    }
    assert newest.keys() - rtx.keys() == {
        "IPluginV3QuickAOTBuild",
        "ISymExpr",
        "ISymExprs",
        "KernelLaunchParams",
        "QuickPluginCreationRequest",
        "_plugin_registry",
    }
    changed = {name for name in rtx.keys() & newest.keys() if rtx[name] != newest[name]}
    assert changed == {
        "Builder",
        "BuilderFlag",
        "IBuilderConfig",
        "ICudaEngine",
        "IExecutionContext",
        "IGpuAllocator",
        "IGpuAsyncAllocator",
        "INetworkDefinition",
        "IRuntimeConfig",
        "ITensor",
        "NetworkDefinitionCreationFlag",
        "Runtime",
    }


def test_the_reader_finds_many_names() -> None:
    can = Capabilities.where(lambda dotted: named(names_of("8.6.0"), dotted))
    names = {name for path in SOURCES for name, _ in Reader(can).body(ast.parse(path.read_text()).body)}
    assert {"BuilderFlag.FP16", "IBuilderConfig.set_flag", "IExecutionContext.execute_async_v3"} <= names
    assert len(names) > 120


@pytest.mark.parametrize(
    ("release", "missing"),
    [
        ("8.6.0", {"BuilderFlag.BF16", "IProgressMonitor", "ParserError.node_name", "ICudaEngine.device_memory_size_v2",
                   "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "INetworkDefinition.add_plugin_v3",
                   "AttentionIOForm.PACKED_NHD", "INetworkDefinition.add_attention_v2"}),
        ("10.16.1", {"INetworkDefinition.add_fully_connected", "AttentionIOForm.PACKED_NHD"}),
        ("11.4.0", {"BuilderFlag.FP16", "BuilderFlag.OBEY_PRECISION_CONSTRAINTS", "ILayer.precision",
                    "ILayer.set_output_type", "ITensor.set_dynamic_range", "IInt8EntropyCalibrator2",
                    "IBuilderConfig.int8_calibrator", "IPluginRegistry.get_plugin_creator",
                    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
                    "ICudaEngine.device_memory_size"}),
    ],
)  # fmt: skip
def test_without_its_conditions_the_source_would_use_missing_names(release: str, missing: set[str]) -> None:
    """The conditions are hidden by another name, so that every release reaches every line."""
    names = set()
    for path in SOURCES:
        hidden = re.sub(rf"\b{CAPABILITIES}\.", "hidden.", path.read_text())
        names |= {text.partition(",")[0] for text in missing_names(hidden, release)}
    assert missing <= names


def test_the_module_and_the_capabilities_have_one_name_each() -> None:
    """The check does not see a use of the module under another name, or other capabilities under the name `can`."""
    faults = [
        f"{path.name}:{line} {fault}"
        for path in SOURCES
        for line, fault in misused_names(ast.parse(path.read_text()), path.name in LOADERS)
    ]
    assert faults == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("vendor = api.trt", "the module is passed on or has another name"),
        ("trt = api.trt\nuse(trt)", "the module is passed on or has another name"),
        ("use(self.api.trt)", "the module is passed on or has another name"),
        ("a, trt = api.trt, 1", "the module is passed on or has another name"),
        ("import tensorrt as trt", "TensorRT is imported at run time"),
        ("def f():\n import tensorrt", "TensorRT is imported at run time"),
        ("from tensorrt import Builder", "TensorRT is imported at run time"),
        ("if TYPE_CHECKING:\n import tensorrt", "TensorRT has another name"),
        ("if TYPE_CHECKING:\n from tensorrt import Builder", "TensorRT has another name"),
        ("can = device.features", "can is assigned from something else"),
        ("trt, can = api.trt, other()", "can is assigned from something else"),
    ],
)
def test_other_names_of_the_module_are_found(source: str, fault: str) -> None:
    assert fault in [found for _, found in misused_names(ast.parse(source))]


@pytest.mark.parametrize(
    "source",
    [
        "trt = api.trt\ntrt.Builder",
        "trt, can, log = target.api.trt, target.api.can, target.log",
        "self._api.trt.Builder",
        "if TYPE_CHECKING:\n import tensorrt as trt",
    ],
)
def test_the_usual_names_of_the_module_are_accepted(source: str) -> None:
    assert list(misused_names(ast.parse(source))) == []


@pytest.mark.parametrize(
    ("source", "release", "missing"),
    [
        ("trt.BuilderFlag.FP16", "11.4.0", ["BuilderFlag.FP16, line 1"]),
        ("if can.weak_typing:\n trt.BuilderFlag.FP16", "11.4.0", []),
        ("self._api.trt.BuilderFlag.FP16", "11.4.0", ["BuilderFlag.FP16, line 1"]),
        ("if self._api.can.weak_typing:\n self._api.trt.BuilderFlag.FP16", "11.4.0", []),
        ("if cannot.weak_typing:\n api.trt.BuilderFlag.FP16", "11.4.0", ["BuilderFlag.FP16, line 2"]),
        ("if not can.weak_typing:\n trt.BuilderFlag.FP16", "11.4.0", ["BuilderFlag.FP16, line 2"]),
        ("def f():\n if not can.weak_typing or x:\n  return\n trt.BuilderFlag.FP16", "11.4.0", []),
        ("def f():\n if x and can.weak_typing:\n  return\n trt.BuilderFlag.FP16", "11.4.0",
         ["BuilderFlag.FP16, line 4"]),
        ("a = trt.BuilderFlag.BF16 if can.bfloat16 else 0", "8.6.0", []),
        ("a = trt.BuilderFlag.BF16 if can.weak_typing else 0", "8.6.0", ["BuilderFlag.BF16, line 1"]),
        ("self._engine.device_memory_size", "11.4.0", ["ICudaEngine.device_memory_size, line 1"]),
        ("class A(trt.IProgressMonitor): pass", "8.6.0", ["IProgressMonitor, line 1"]),
        ("config.no_such_thing = 1", "10.16.1", ["IBuilderConfig.no_such_thing, line 1"]),
        ("target.config.no_such_thing = 1", "10.16.1", ["IBuilderConfig.no_such_thing, line 1"]),
        ("f(trt.NoSuch).network.name", "10.16.1", ["NoSuch, line 1"]),
        ("def f(layer: trt.NoSuch): pass", "10.16.1", ["NoSuch, line 1"]),
        ("trt.get_plugin_registry().plugin_creator_list", "11.4.0", ["IPluginRegistry.plugin_creator_list, line 1"]),
        ("trt.Runtime(log).no_such()", "8.6.0", ["Runtime.no_such, line 1"]),
    ],
)  # fmt: skip
def test_names_that_a_release_reaches_and_lacks_are_listed(source: str, release: str, missing: list[str]) -> None:
    assert missing_names(source, release) == missing


@pytest.mark.parametrize(
    ("release", "has"),
    [
        (
            "8.6.0",
            {
                "explicit_batch",
                "weak_typing",
                "calibration",
                "memory_size_v1",
                "plugin_v2",
                "fully_connected",
                "tactic_heuristic",
                "profile_sharing",
            },
        ),
        (
            RTX,
            {
                "strong_typing",
                "bfloat16",
                "opset_19",
                "int64_sizes",
                "progress",
                "named_parser_errors",
                "packed_attention",
                "named_targets",
                "runtime_strategies",
                "engine_validity",
            },
        ),
        (
            "11.4.0",
            {
                "strong_typing",
                "bfloat16",
                "opset_19",
                "int64_sizes",
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
