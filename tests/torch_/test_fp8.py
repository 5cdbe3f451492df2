"""FP8 of the PyTorch backends on a CPU: scales, rounding, the layers that are converted, and outputs against FP32."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import OTHER_MODELS, TINY_MODELS, Cli, json_of
from torch.nn import functional

from backends.base import Artifact, BuildSpec, Device, Shape, Source, Unsupported
from backends.cache import ArtifactCache
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.model.checkpoint import load_encoder, run_encoder
from backends.onnx_.calibration import CalibrationInputs
from backends.onnx_.linear_ranges import largest_inputs
from backends.onnx_.onnx_source import export_onnx, prepare_source
from backends.onnx_.ranges import activation_ranges
from backends.options import Switch
from backends.quantization_options import QuantizationOptions
from backends.registry import describe, load_backend
from backends.torch_.description import CompileOptions, PackedMode, PackedOptions
from backends.torch_.fp8 import INPUT_RANGES
from backends.torch_.fp8_encoder import Conversion, convert_to_fp8
from backends.torch_.fp8_gelu import tail_gelu
from backends.torch_.fp8_linear import LARGEST, Fp8Linear, scale_of, to_e4m3
from backends.torch_.merged_linear import MergedLinear
from backends.torch_.model_precision import load_model
from backends.torch_.packed_encoder import PackedModel, compiled
from suites.measuring.machine import cpu
from suites.records.results_folder import read_records

Tiny = Callable[[str], tuple[Path, str]]

CALIBRATION = CalibrationSize(8, 24)
OPTIONS = QuantizationOptions(samples=8, sequence=24)
UNMERGED = ("modernbert", "deberta-v2")
"""Families without groups: ModernBERT has one layer for query, key and value, and DeBERTa also applies two of its three
layers to distances."""


def batch(folder: Path, seed: int = 0) -> Mapping[str, np.ndarray]:
    (feeds,) = calibration_batches(folder, [], CALIBRATION, seed)
    return feeds


def converted(folder: Path, leave_out: tuple[str, ...] = (), merge: bool = True) -> torch.nn.Module:
    """Return an encoder in FP8, calibrated with `batch`."""
    encoder = load_encoder(folder)
    inputs = {name: torch.zeros(1, 2, dtype=torch.int32) for name in batch(folder) if name != "attention_mask"}
    convert_to_fp8(encoder, largest_inputs(encoder, [batch(folder)]), inputs, Conversion(leave_out, merge))
    return encoder


def count(model: torch.nn.Module, kind: type[torch.nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.mark.parametrize("family", [*TINY_MODELS, *OTHER_MODELS])
def test_all_linear_layers_of_every_family_become_fp8(family: str, tiny: Tiny) -> None:
    folder, _ = tiny(family)
    encoder, feeds = load_encoder(folder), batch(folder, seed=1)
    layers = count(encoder, torch.nn.Linear)
    assert layers >= 7
    with torch.inference_mode():
        expected = run_encoder(encoder, feeds)
        for merge in (False, True):
            found = converted(folder, merge=merge)
            merged = [module for module in found.modules() if isinstance(module, MergedLinear)]
            assert bool(merged) == (merge and family not in UNMERGED)
            assert count(found, torch.nn.Linear) == 0
            assert count(found, Fp8Linear) == layers - sum(len(module.sizes) - 1 for module in merged)
            real = torch.from_numpy(feeds["attention_mask"]).bool()
            output = run_encoder(found, feeds)
            assert output.dtype == torch.float16
            cosine = functional.cosine_similarity(output[real].float(), expected[real], dim=-1)
            assert 0.998 < cosine.min().item() < 1 - 1e-7


def test_a_layer_computes_with_its_rounded_operands() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(sizes, generator=generator) for sizes in ((48, 32), (48,), (3, 5, 32)))
    x[0, 0, 0] = 100.0  # far above the range of calibration
    layer = Fp8Linear(weight, bias, 3.0, "a layer")
    assert layer.weight.dtype == torch.float8_e4m3fn
    assert layer.weight_scale.item() == pytest.approx(weight.abs().max().item() / LARGEST, rel=1e-6)
    assert layer.input_scale.item() == pytest.approx(3.0 / LARGEST, rel=1e-6)
    rounded_weight = layer.weight.float() * layer.weight_scale
    rounded_x = to_e4m3(x, layer.inverse).float() * layer.input_scale
    assert rounded_x[0, 0, 0].item() == pytest.approx(3.0)
    expected = functional.linear(rounded_x, rounded_weight, bias)
    torch.testing.assert_close(layer(x.half()).float(), expected, atol=4e-3, rtol=2e-3)


def test_rounding_is_to_the_nearest_number_with_three_bits_of_mantissa() -> None:
    """The numbers of E4M3: multiples of 2^-9 up to 2^-6, then eight steps for each power of two, up to 448."""
    numbers = [m * 2.0**-9 for m in range(8)] + [(8 + m) * 2.0 ** (e - 3) for e in range(-6, 9) for m in range(8)]
    numbers = sorted({*numbers[:-1]})
    assert numbers[-1] == LARGEST
    values = np.random.default_rng(0).uniform(-1, 1, 10_000).astype(np.float32) * 2.0 ** np.linspace(-9, 9, 10_000)
    signed = np.array([*(-n for n in numbers if n), *numbers])
    rounded = to_e4m3(torch.from_numpy(values.astype(np.float32)), torch.tensor(1.0)).float().numpy()
    nearest = np.abs(values[:, None] - signed).min(axis=1)
    np.testing.assert_allclose(np.abs(rounded - values), nearest, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("largest", [0.0, math.nan, math.inf])
def test_scales_of_zero_and_nan_are_refused_with_the_name_of_the_layer(largest: float) -> None:
    ones = torch.ones(16, 16)
    with pytest.raises(
        Unsupported, match=r"^FP8 has no scale for the input of layer\.3\.dense: .* is (0|nan|inf); .*$"
    ):
        Fp8Linear(ones, None, largest, "layer.3.dense")
    with pytest.raises(Unsupported, match=r"^FP8 has no scale for the weight of layer\.3\.dense: .* is (0|nan|inf); "):
        Fp8Linear(ones * largest, None, 1.0, "layer.3.dense")
    assert scale_of(LARGEST, "x") == 1.0


def test_a_checkpoint_with_a_layer_of_zeros_is_refused_unless_the_layer_is_left_out(tiny: Tiny, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder, _ = tiny("bert")
    weights = load_file(folder / "model.safetensors")
    zeros = next(name for name in weights if name.endswith("layer.1.output.dense.weight"))
    save_file({**weights, zeros: torch.zeros_like(weights[zeros])}, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(Unsupported, match=r"the weight of encoder\.layer\.1\.output\.dense: .* is 0"):
        converted(tmp_path)
    assert count(converted(tmp_path, ("*/layer.1/output/*",)), torch.nn.Linear) == 1


def test_layers_stay_in_fp16_if_a_pattern_names_them_or_their_sizes_do_not_fit(tiny: Tiny) -> None:
    folder, _ = tiny("bert")
    encoder = converted(folder, ("*/layer.0/attention/self/key/*", "*/layer.1/*"))
    # The layers of layer 1, and the key of layer 0. Its query and value are one product.
    assert (count(encoder, torch.nn.Linear), count(encoder, Fp8Linear)) == (7, 4)
    assert encoder.get_submodule("encoder.layer.0.attention.self.key").weight.dtype == torch.float16
    with pytest.raises(ValueError, match="no/such"):
        converted(folder, ("*/no/such/*",))
    small = torch.nn.ModuleList([torch.nn.Linear(16, 24), torch.nn.Linear(16, 32)])
    convert_to_fp8(small, {"0": 1.0, "1": 1.0}, {}, Conversion(merge=False))
    assert [type(module) for module in small] == [torch.nn.Linear, Fp8Linear]


def test_ranges_are_those_of_the_calibration_of_int8(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, identity = tiny("bert")
    calibration = CalibrationInputs(lambda: [batch(folder)], {"test": "fp8"})
    path = activation_ranges(export_onnx(folder, identity, shared_cache), OPTIONS, calibration, shared_cache).path
    points = json.loads(path.read_text())
    ranges = largest_inputs(load_encoder(folder), [batch(folder)])
    for layer, before in enumerate(("embeddings", "0/output")):
        own = f"encoder.layer.{layer}."
        expected = {
            "attention.self.query": points[before],
            "attention.self.value": points[before],
            "attention.output.dense": points[f"{layer}/context"],
            "intermediate.dense": points[f"{layer}/attention"],
            "output.dense": points[f"{layer}/gelu"],
        }
        assert {name: ranges[own + name] for name in expected} == pytest.approx(expected, rel=1e-4)


def test_gelu_differs_from_its_definition_by_less_than_fp16_rounds() -> None:
    x = torch.linspace(-10, 10, 20_001)
    exact = functional.gelu(x.double())
    torch.testing.assert_close(tail_gelu(x).double(), exact, atol=7e-7, rtol=0)
    negative = (x >= -4) & (x < 0)
    torch.testing.assert_close(tail_gelu(x).double()[negative], exact[negative], atol=0, rtol=2**-8)
    far = torch.tensor([-1e9, -65504.0, 65504.0])
    assert tail_gelu(far).tolist() == [0, 0, 65504]


def spec_of(name: str, cache: ArtifactCache, quantization: QuantizationOptions = OPTIONS) -> BuildSpec:
    options = describe(name).options()
    return BuildSpec("fp8", cpu().device, (Shape(4, 24),), False, cache.root, options, quantization, threads=1)


def built(name: str, tiny: Tiny, cache: ArtifactCache, quantization: QuantizationOptions = OPTIONS) -> Artifact:
    (folder, identity), backend, spec = tiny("electra"), load_backend(name), spec_of(name, cache, quantization)
    backend.check(spec)
    source = prepare_source(folder, identity, backend.source_form(spec), quantization, [], 0, cache)
    assert source.onnx is None
    return backend.build(spec, source)


def test_both_backends_use_the_same_ranges_and_leave_out_the_same_layers(
    tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    by_layer = built("torch_compile", tiny, shared_cache).notes[INPUT_RANGES]
    by_product = built("torch_packed", tiny, shared_cache).notes[INPUT_RANGES]
    assert isinstance(by_layer, dict)
    assert isinstance(by_product, dict)
    assert by_product["0/qkv"] == by_layer["encoder.layer.0.attention.self.key"]
    assert by_product["1/down"] == by_layer["encoder.layer.1.output.dense"]
    assert by_product["projection"] == by_layer["embeddings_project"]
    assert set(by_product) == {
        "projection",
        *(f"{n}/{name}" for n in (0, 1) for name in ("qkv", "output", "up", "down")),
    }
    some = QuantizationOptions(samples=8, sequence=24, leave_out=["*/layer.0/attention/*", "*project*"])
    left = built("torch_packed", tiny, shared_cache, some).notes[INPUT_RANGES]
    assert isinstance(left, dict)
    assert set(by_product) - set(left) == {"projection", "0/qkv", "0/output"}


@pytest.mark.parametrize(
    ("precision", "options", "expected"),
    [
        ("fp8", {}, ("default", True)),
        ("fp8", {"packed_mode": PackedMode.default}, ("default", False)),
        ("fp8", {"packed_mode": PackedMode.eager}, None),
        ("fp16", {}, None),
        ("fp16", {"packed_mode": PackedMode.max_autotune}, ("max-autotune-no-cudagraphs", False)),
        ("fp16", {"packed_mode": PackedMode.default, "dynamic": Switch.on}, ("default", True)),
    ],
)
def test_a_packed_model_is_compiled_as_its_options_say(
    precision: str,
    options: dict[str, PackedMode | Switch],
    expected: tuple[str, bool] | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    calls: list[tuple[str, bool]] = []
    monkeypatch.setattr(torch, "compile", lambda run, mode, dynamic: calls.append((mode, dynamic)) or run)
    model = PackedModel({}, 1e-12)
    for device in (Device(), Device("cuda", 0, "NVIDIA New", "GPU-0", (9, 0))):
        spec = BuildSpec(precision, device, (Shape(4, 24),), False, tmp_path, PackedOptions(**options))
        assert compiled(model, spec) == model.run
    assert calls == ([expected] if expected else [])


def test_merged_layers_give_the_outputs_of_separate_layers(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, sha256 = tiny("bert")
    artifact, outputs = (
        load_backend("torch_compile").build(
            BuildSpec("fp32", cpu().device, (), False, shared_cache.root, CompileOptions()), Source(folder, sha256)
        ),
        [],
    )
    for merge in (Switch.auto, Switch.on):
        spec = BuildSpec("fp32", cpu().device, (), False, shared_cache.root, CompileOptions(merge_qkv=merge))
        model = load_model(spec, artifact)
        assert count(model, MergedLinear) == (2 if merge is Switch.on else 0)
        with torch.inference_mode():
            outputs.append(run_encoder(model.encoder, batch(folder)))
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=0)


def test_new_options_do_not_change_older_cells() -> None:
    assert CompileOptions().for_cell() == {"dynamic": "off", "compile_mode": "default"}
    assert describe("torch_packed").options().for_cell() == {}


def test_a_run_in_fp8_records_its_quantization_and_refuses_options_of_graphs(
    fast_cli: Cli, tiny: Tiny, tmp_path: Path
) -> None:
    folder, _ = tiny("bert")
    line = ("backend=torch_packed", "precision=fp8", "device=cpu", f"model.path={folder}", "batch=[2]", "sequence=[16]",
            "suite.warm_up_s=0.01", "suite.seconds=0.01", "suite.min_samples=2", "quantization.samples=8")  # fmt: skip
    done = fast_cli(*line, "quantization.leave_out=['*/layer.0/attention/*']")
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "latency")
    quantization = json_of(record)["cell"]["options"]["quantization"]
    assert quantization["leave_out"] == ["*/layer.0/attention/*"]
    assert quantization["samples"] == 8
    assert len(json_of(record)["artifacts"]["built"]["notes"][INPUT_RANGES]) == 6
    assert all(check.cosine is not None and check.cosine > 0.999 for check in record.checks)
    for option in ("placement=ffn", "smooth=0.5", "exact_residual=true", "per_channel=false", "method=entropy"):
        refused = fast_cli(*line, f"quantization.{option}")
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert f"quantization.{option.partition('=')[0]}" in refused.stderr
