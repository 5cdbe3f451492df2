"""Backend torch_tensorrt with a fake of the package: arguments, programs, sessions on the CPU, and refusals.

The fake checks each argument against signatures.json, which make_signatures.py wrote from the package, and runs the
exported program in PyTorch. Engines need a GPU and the libraries of TensorRT.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import OTHER_MODELS, TINY_MODELS

from backends.base import Artifact, BuildSpec, Device, Shape, Source, Unavailable, Unsupported
from backends.config_key import cell_mapping
from backends.json_codec import from_json
from backends.model.checkpoint_files import weight_files
from backends.options import Profiles, SharedKeys
from backends.profiles import Profile
from backends.torch_tensorrt_ import torch_tensorrt_backend
from backends.torch_tensorrt_.compile_profiles import (
    compile_settings,
    dynamic_axes,
    example_inputs,
    merged_counts,
    model_to_compile,
    operators_by_library,
)
from backends.torch_tensorrt_.description import TorchTensorRTKeys, TorchTensorRTOptions
from backends.torch_tensorrt_.torch_tensorrt_backend import TorchTensorRT
from backends.value_checks import Refused

SIGNATURES = json.loads(Path(__file__).with_name("signatures.json").read_text(encoding="utf-8"))
SHAPES = (Shape(1, 16), Shape(4, 32))
GPU = Device("cuda", 0, "NVIDIA Test", "GPU-0", (9, 0), driver="580")

TYPES: dict[str, Callable[[Any], bool]] = {
    "bool": lambda value: type(value) is bool,
    "int": lambda value: type(value) is int,
    "Optional[int]": lambda value: value is None or type(value) is int,
    "str": lambda value: isinstance(value, str),
    "Any": lambda value: True,
    "ExportedProgram": lambda value: isinstance(value, torch.export.ExportedProgram),
    "Optional[Union[Device, torch.device, str]]": lambda value: isinstance(value, torch.device),
    "Optional[Sequence[Sequence[Any]]]": lambda value: isinstance(value, list) and value != [],
    "Optional[Sequence[torch.Tensor | Input]]": lambda value: all(isinstance(item, torch.Tensor) for item in value),
    "Optional[Dict[str, Any]]": lambda value: value is None or isinstance(value, dict),
    "Tuple or List": lambda value: isinstance(value, tuple) and all(type(size) is int and size > 0 for size in value),
    "torch.dtype or torch_tensorrt.dtype": lambda value: isinstance(value, torch.dtype),
}
"""Checks of values by the annotation or the documented type of their parameter."""


class FakePackage:
    """Fake of the package torch_tensorrt. `compiled` has the arguments of each compilation."""

    def __init__(self) -> None:
        self.compiled: list[dict[str, Any]] = []
        self.saved: list[dict[str, Any]] = []
        self.dynamo = SimpleNamespace(compile=self.compile)

    def Input(self, **given: Any) -> dict[str, Any]:  # the name in the package
        checked("Input", (), given)
        ranged = {"min_shape", "opt_shape", "max_shape"}
        assert ranged <= given.keys() or ("shape" in given and not ranged & given.keys())
        return given

    def compile(self, *arguments: Any, **given: Any) -> torch.fx.GraphModule:
        values = checked("dynamo.compile", arguments, given)
        program = values["exported_program"]
        assert len(values["arg_inputs"]) == len(program.graph_signature.user_inputs)
        self.compiled.append(values)
        return partitioned() if values.get("dryrun") else program.module()

    def save(self, *arguments: Any, **given: Any) -> None:
        values = checked("save", arguments, given)
        self.saved.append(values)
        with torch.no_grad():
            program = torch.export.export(
                values["module"], tuple(values["arg_inputs"]), dynamic_shapes=values["dynamic_shapes"]
            )
        torch.export.save(program, values["file_path"])

    def load(self, *arguments: Any, **given: Any) -> torch.export.ExportedProgram:
        return torch.export.load(checked("load", arguments, given)["file_path"])


def checked(function: str, arguments: Sequence[Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name. Fail if the function has no such parameter, or another type for it.

    The functions of the package take unknown keywords without an error.
    """
    signature = SIGNATURES[function]
    values = {**dict(zip(signature, arguments, strict=False)), **given}
    assert values.keys() <= signature.keys()
    wrong = {name: value for name, value in values.items() if not TYPES[signature[name]](value)}
    assert wrong == {}
    return values


def partitioned() -> torch.fx.GraphModule:
    """Return a partitioned model: three operators in an engine, one in a part for PyTorch, and one outside."""
    part = torch.fx.symbolic_trace(lambda x: torch.relu(torch.tanh(x)) + 1)
    rest = torch.fx.symbolic_trace(lambda x: (torch.split(x, 1)[0],))
    graph = torch.fx.Graph()
    value = graph.call_module("_run_on_acc_0", (graph.placeholder("x"),))
    first = graph.call_function(operator.getitem, (graph.call_module("_run_on_gpu_1", (value,)), 0))
    graph.output(graph.call_function(torch.relu, (first,)))
    return torch.fx.GraphModule({"_run_on_acc_0": part, "_run_on_gpu_1": rest}, graph)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> FakePackage:
    fake = FakePackage()
    monkeypatch.setitem(torch_tensorrt_backend.sys.modules, "torch_tensorrt", fake)  # type: ignore[arg-type]
    install(monkeypatch, torch="2.13.0", **{"torch-tensorrt": "2.13.0"})
    return fake


def install(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    monkeypatch.setattr(
        torch_tensorrt_backend, "versions_of", lambda names: {n: versions[n] for n in names if n in versions}
    )


def options(profiles: str = "per_shape", **given: Any) -> TorchTensorRTOptions:
    shared = from_json(SharedKeys, {"batch": [1, 4], "sequence": [16, 32], "profiles": profiles})
    return TorchTensorRTOptions.resolved(shared, {"torch_tensorrt": from_json(TorchTensorRTKeys, given)})


def spec(cache: Path, precision: str = "fp32", device: Device | None = None, **given: Any) -> BuildSpec:
    return BuildSpec(precision, device or Device(), SHAPES, False, cache, options(**given))


Tiny = Callable[[str], tuple[Path, str]]


@pytest.mark.filterwarnings("ignore")  # torch.export warns about torch's own deprecated functions
@pytest.mark.parametrize(("profiles", "programs"), [("per_shape", 2), ("dynamic", 1)])
def test_a_session_runs_the_program_of_the_profile(
    profiles: str, programs: int, tiny: Tiny, tmp_path: Path, package: FakePackage
) -> None:
    folder, sha256 = tiny("bert")
    backend, requested = TorchTensorRT(), spec(tmp_path, profiles=profiles)
    backend.check(requested)
    artifact = backend.build(requested, Source(folder, sha256))
    assert artifact.notes["nodes_by_provider"] == {"TensorRT": 3, "PyTorch": 2}
    assert len(from_json(list[str], artifact.notes["profiles"], "profiles")) == programs
    assert len(package.saved) == programs
    assert [values.get("dryrun", False) for values in package.compiled] == [True, False] * programs
    model = model_to_compile(requested, Artifact(weight_files(folder)[0], sha256), tmp_path).model
    with backend.open(requested, artifact) as session:
        for shape in (SHAPES[0], SHAPES[1], SHAPES[0]):
            ids = np.random.default_rng(0).integers(5, 400, (shape.batch, shape.sequence), np.int32)
            mask = (np.arange(shape.sequence) < shape.sequence - 3).astype(np.int32)[None].repeat(shape.batch, 0)
            session.load({"input_ids": ids, "attention_mask": mask, "token_type_ids": 0 * ids})
            session.step()
            with torch.no_grad():
                expected = model(*(torch.from_numpy(array) for array in (ids, mask, 0 * ids)))
            assert np.allclose(session.fetch()[:, :-3], expected[:, :-3], atol=1e-5)
        with pytest.raises(Unsupported, match=r"1x16.*; widen torch_tensorrt.min and torch_tensorrt.max$"):
            session.load({"input_ids": np.ones((9, 99), np.int32)})
        with pytest.raises(Unsupported, match="CUDA graphs need a GPU"):
            session.capture()
    built_again = len(package.compiled)
    assert backend.build(requested, Source(folder, sha256)).sha256 == artifact.sha256
    assert len(package.compiled) == built_again


@pytest.mark.filterwarnings("ignore")
def test_a_program_that_was_changed_is_not_loaded(tiny: Tiny, tmp_path: Path, package: FakePackage) -> None:
    backend, requested = TorchTensorRT(), spec(tmp_path, profiles="dynamic")
    artifact = backend.build(requested, Source(*tiny("distilbert")))
    artifact.path.with_name("profile0.ep").write_bytes(b"another program")
    with pytest.raises(RuntimeError, match=r"profile0.ep differs from the program that was built; run the cell again"):
        backend.open(requested, artifact)
    artifact.path.write_text("{}", encoding="utf-8")
    with pytest.raises(RuntimeError, match="the list of programs differs"):
        backend.open(requested, artifact)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", [*TINY_MODELS, *OTHER_MODELS])
def test_each_family_is_exported_with_changing_shapes(family: str, tiny: Tiny, tmp_path: Path) -> None:
    folder, sha256 = tiny(family)
    source = model_to_compile(spec(tmp_path), Artifact(weight_files(folder)[0], sha256), tmp_path)
    profile = Profile(Shape(1, 16), Shape(4, 32), Shape(4, 32))
    example = tuple(example_inputs(source, profile))
    with torch.no_grad():
        program = torch.export.export(source.model, example, dynamic_shapes=dynamic_axes(source.inputs, profile))
        smallest = tuple(value[:1, :16] for value in example)
        assert torch.allclose(program.module()(*smallest), source.model(*smallest), atol=1e-5)


@pytest.mark.parametrize(
    ("smallest", "largest", "axes"),
    [((1, 16), (4, 32), [0, 1]), ((1, 16), (1, 32), [1]), ((1, 16), (4, 16), [0]), ((2, 16), (2, 16), None)],
)
def test_only_axes_with_a_range_are_dynamic(
    smallest: tuple[int, int], largest: tuple[int, int], axes: list[int] | None
) -> None:
    found = dynamic_axes(2, Profile(Shape(*smallest), Shape(*largest), Shape(*largest)))
    assert (None if found is None else {name: list(by_axis) for name, by_axis in found.items()}) == (
        None if axes is None else {"input_ids": axes, "attention_mask": axes}
    )


def test_inputs_have_the_min_opt_and_max_shape_of_the_profile(tiny: Tiny, tmp_path: Path, package: FakePackage) -> None:
    requested = spec(tmp_path, profiles="dynamic", opt=[2, 24])
    TorchTensorRT().build(requested, Source(*tiny("bert")))
    expected = {"min_shape": (1, 16), "opt_shape": (2, 24), "max_shape": (4, 32), "dtype": torch.int32}
    assert package.compiled[1]["arg_inputs"] == [expected] * 3


@pytest.mark.parametrize(
    ("precision", "given", "settings"),
    [
        ("fp32", {}, {"disable_tf32": True, "max_aux_streams": None, "workspace_size": 0, "min_block_size": 5}),
        ("tf32", {"aux_streams": 0, "min_block_size": 1},
         {"disable_tf32": False, "max_aux_streams": 0, "min_block_size": 1}),
        ("fp16", {"workspace_mb": 2, "optimization_level": 5, "hardware_compatible": True},
         {"workspace_size": 2 << 20, "optimization_level": 5, "hardware_compatible": True}),
    ],
)  # fmt: skip
def test_options_become_settings_of_the_compiler(
    precision: str, given: dict[str, Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    source: Any = SimpleNamespace(spec=spec(tmp_path, precision, **given), timings=tmp_path / "timings.bin")
    found = compile_settings(source)
    checked("dynamo.compile", (), found)
    assert found | settings == found
    assert found["attn_bias_is_causal"] is False
    assert found["timing_cache_path"] == str(tmp_path / "timings.bin")


def test_the_model_has_the_type_of_the_precision(tiny: Tiny, tmp_path: Path) -> None:
    folder, sha256 = tiny("bert")
    for precision, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16), ("tf32", torch.float32)):
        source = model_to_compile(spec(tmp_path, precision), Artifact(weight_files(folder)[0], sha256), tmp_path)
        assert {parameter.dtype for parameter in source.model.parameters()} == {dtype}


def test_operators_are_counted_by_the_library_that_runs_them() -> None:
    assert operators_by_library(partitioned()) == {"TensorRT": 3, "PyTorch": 2}
    assert operators_by_library(torch.fx.symbolic_trace(lambda x: torch.relu(x + 1))) == {"PyTorch": 2}
    assert merged_counts([{"TensorRT": 5}, {"TensorRT": 3, "PyTorch": 2}]) == {"TensorRT": 3, "PyTorch": 2}


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        ({}, "torch is not installed in this interpreter: pip install torch==2.13.0"),
        ({"torch": "2.13.0+cpu"}, r"torch-tensorrt is not installed .*: pip install 'torch-tensorrt==2\.13\.\*'"),
        ({"torch": "2.14.1"}, r"pip install 'torch-tensorrt==2\.14\.\*'"),
        ({"torch": "2.12.0", "torch-tensorrt": "2.12.0"}, "torch-tensorrt 2.12.0 is older than 2.13: pip install --up"),
        ({"torch": "2.13.0", "torch-tensorrt": "2.14.0"}, r"another release than torch 2\.13\.0: pip install"),
    ],
)
def test_a_missing_or_different_release_is_unavailable(
    versions: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, **versions)
    with pytest.raises(Unavailable, match=reason) as refused:
        TorchTensorRT().check(spec(tmp_path, "fp16", GPU))
    assert "\n" not in str(refused.value)
    (finding,) = TorchTensorRT().findings(GPU)
    assert finding.text == str(refused.value)


@pytest.mark.parametrize(
    ("precision", "device", "reason"),
    [
        ("int8", GPU, "from models that nvidia-modelopt quantized, .*; use backend=trt"),
        ("fp8", GPU, "from models that nvidia-modelopt quantized"),
        ("bf16", replace(GPU, compute_capability=(7, 5)), "bf16 needs compute capability 8.0; NVIDIA Test is older"),
    ],
)
def test_a_precision_that_it_does_not_compute_is_refused(
    precision: str, device: Device, reason: str, tmp_path: Path, package: FakePackage
) -> None:
    with pytest.raises(Unsupported, match=reason):
        TorchTensorRT().check(spec(tmp_path, precision, device))
    TorchTensorRT().check(spec(tmp_path, "bf16", GPU))


def test_a_shape_outside_the_range_is_refused(tmp_path: Path, package: FakePackage) -> None:
    requested = replace(spec(tmp_path, "fp16", GPU, profiles="dynamic"), shapes=(Shape(8, 16),))
    with pytest.raises(Unsupported, match=r"widen torch_tensorrt\.min and torch_tensorrt\.max$"):
        TorchTensorRT().check(requested)


@pytest.mark.parametrize(
    ("profiles", "given", "fault"),
    [
        ("ranges", {}, "profiles=ranges is for backend=trt and trt_plugin"),
        ("dynamic", {"min": [8, 16]}, "torch_tensorrt.min, .* must not decrease; their batch is 8, 4, 4"),
        ("dynamic", {"min_block_size": 0}, "torch_tensorrt.min_block_size=0 must be at least 1"),
        ("dynamic", {"optimization_level": 9}, "torch_tensorrt.optimization_level=9 must be between 0 and 5"),
    ],
)  # fmt: skip
def test_values_that_contradict_one_another_are_refused(profiles: str, given: dict[str, Any], fault: str) -> None:
    with pytest.raises(Refused, match=fault):
        options(profiles, **given)


def test_the_options_are_in_the_cell() -> None:
    cell = cell_mapping(options("dynamic"))
    assert {"profiles": "dynamic", "min": [1, 16], "opt": [4, 32], "max": [4, 32]}.items() <= cell.items()
    assert options().profiles is Profiles.per_shape


def test_a_machine_without_a_gpu_is_refused_in_one_line(cli: Any) -> None:
    ran = cli("backend=torch_tensorrt", "precision=fp16", "device=cpu")
    assert ran.returncode != 0
    assert "backend=torch_tensorrt runs on a GPU only; choose device=cuda or another backend" in ran.stderr
