"""Products in FP8 on a CPU: the FP32 products of E4M3 numbers against `torch._scaled_mm`, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from backends.base import BuildSpec, Shape
from backends.cache import ArtifactCache
from backends.onnx_.onnx_source import prepare_source
from backends.quantization_options import QuantizationOptions
from backends.registry import describe, load_backend
from backends.torch_.fp8_gelu import tail_gelu
from backends.torch_.fp8_linear import E4M3, Fp8Linear, widen_weights
from backends.torch_.model_precision import load_model
from suites.measuring.machine import cpu

Tiny = Callable[[str], tuple[Path, str]]


def layer(inputs: int, outputs: int, biased: bool, largest: float = 4.0) -> Fp8Linear:
    generator = torch.Generator().manual_seed(inputs + outputs)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    bias = torch.randn(outputs, generator=generator) if biased else None
    return Fp8Linear(weight, bias, largest, "a layer")


def rows_of(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(count)).half()


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 16, 16), (5, 32, 48), (17, 256, 64), (3, 1536, 16)])
def test_products_agree_with_scaled_mm_within_the_rounding_of_fp16(
    rows: int, inputs: int, outputs: int, biased: bool
) -> None:
    module = layer(inputs, outputs, biased)
    rounded = module.rounded(rows_of(rows, inputs))
    assert rounded.dtype == E4M3
    expected = torch._scaled_mm(
        rounded,
        module.weight.t(),
        scale_a=module.input_scale,
        scale_b=module.weight_scale,
        bias=module.bias,
        out_dtype=torch.float16,
        use_fast_accum=True,
    )
    narrow = module.product(rounded)
    widen_weights(module)
    assert module.weight.dtype == torch.float32
    wide = module.product(rounded)
    assert wide.dtype == narrow.dtype == torch.float16
    assert torch.equal(wide, narrow)
    # FP16 has 11 bits, so neighbours differ by at most 2^-10 of their value.
    torch.testing.assert_close(wide, expected, rtol=2**-10, atol=2**-14)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile warns about torch's own deprecated functions
def test_compiled_layers_keep_the_rounding_of_their_inputs() -> None:
    """A compiler that fuses the conversions to E4M3 and back to FP32 must not drop them."""
    modules = torch.nn.ModuleList([layer(64, 128, biased=True), layer(128, 32, biased=True)])
    widen_weights(modules)
    up, down = modules

    def block(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = down(tail_gelu(up(functional.layer_norm(x, x.shape[-1:]))))
        return result

    def without_rounding(x: torch.Tensor) -> torch.Tensor:
        for module in modules:
            x = x if module is up else tail_gelu(x)
            x = functional.linear(x, module.weight * module.weight_scale, module.bias.float())
        return x

    x = rows_of(50, 64)
    with torch.inference_mode():
        eager, found = block(x).float(), torch.compile(block)(x).float()
        unrounded = without_rounding(functional.layer_norm(x.float(), x.shape[-1:]))
    torch._dynamo.reset()
    error = (eager - unrounded).abs().mean()
    assert (found - unrounded).abs().mean() > 0.9 * error
    assert (found - eager).abs().mean() < 0.3 * error


@pytest.mark.parametrize("name", ["torch_compile", "torch_packed"])
def test_a_model_on_a_cpu_has_wide_weights_with_e4m3_values(name: str, tiny: Tiny, shared_cache: ArtifactCache) -> None:
    (folder, identity), backend = tiny("bert"), load_backend(name)
    quantization = QuantizationOptions(samples=8, sequence=24)
    device, options = cpu().device, describe(name).options()
    spec = BuildSpec("fp8", device, (Shape(4, 24),), False, shared_cache.root, options, quantization, threads=1)
    source = prepare_source(folder, identity, backend.source_form(spec), quantization, [], 0, shared_cache)
    artifact = backend.build(spec, source)
    if name == "torch_compile":
        model: torch.nn.Module = load_model(spec, artifact)
    else:
        with backend.open(spec, artifact) as session:
            model = session._model.__self__.products
    layers = [module for module in model.modules() if isinstance(module, Fp8Linear)]
    assert len(layers) == 4 * 2
    for module in layers:
        assert module.weight.dtype == torch.float32
        assert torch.equal(module.weight, module.weight.to(E4M3).float())
