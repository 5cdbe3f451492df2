"""Keys of an INT8 recipe without effect on a backend are refused."""

from __future__ import annotations

from typing import Any

import pytest

from backends.base import Device
from backends.options import Switch
from backends.quantization_options import Activation, Method, Placement, Scheme
from backends.registry import describe
from suites.asking.request import quantizes
from suites.asking.resolve_options import quantization_of
from suites.measuring.machine import Machine
from suites.schema.config import RunConfig
from suites.schema.enums import Precision
from suites.schema.refusals import Refused

CPU = Machine(Device(features=("avx512_vnni",)), "cpu")
GPU = Machine(Device("cuda"), "gpu")


def config(backend: str, precision: Precision = Precision.int8, **keys: Any) -> RunConfig:
    run_config = RunConfig()
    run_config.backend, run_config.precision = backend, precision
    for name, value in keys.items():
        setattr(run_config.quantization, name, value)
    return run_config


@pytest.mark.parametrize(
    ("backend", "machine", "keys", "message"),
    [
        (
            "trt_plugin",
            GPU,
            {"placement": Placement.gemm},
            "placement=gemm: an engine of plugins does not use it",
        ),
        ("trt_plugin", GPU, {"per_channel": False}, "per_channel=false: an engine of plugins"),
        ("trt_plugin", GPU, {"reduce_range": Switch.on}, "reduce_range=on: an engine of plugins"),
        ("trt_plugin", GPU, {"exact_residual": True}, "exact_residual=true: norms of plugins read the residual"),
        ("trt", GPU, {"scheme": Scheme.implicit, "exact_residual": True}, "exact_residual=true: it needs explicit"),
        ("trt_plugin", GPU, {"activation": Activation.uint8}, "TensorRT reads no zero points"),
        ("trt", GPU, {"activation": Activation.uint8}, "TensorRT reads no zero points"),
        ("trt", GPU, {"scheme": Scheme.implicit, "qat_steps": 3}, "qat_steps=3: it needs explicit"),
        ("trt", GPU, {"scheme": Scheme.implicit, "smooth": 0.5}, "smooth=0.5: it needs explicit"),
        ("trt", GPU, {"scheme": Scheme.implicit, "leave_out": ["*"]}, "it needs explicit"),
        ("trt", GPU, {"scheme": Scheme.implicit, "method": Method.percentile}, "scheme=implicit does not have it"),
        (
            "trt",
            GPU,
            {"scheme": Scheme.implicit, "method": Method.search},
            "method=search: scheme=implicit does not have it",
        ),
        ("ort", CPU, {"smooth": 0.5, "qat_steps": 3}, "smooth=0.5: training learns ranges"),
        ("trt", GPU, {"smooth": 0.5, "method": Method.search}, "smooth=0.5: method=search tries ranges on"),
        ("trt", GPU, {"shift": True, "method": Method.search}, "shift=true: method=search tries ranges on"),
        ("trt", GPU, {"qat_steps": 3, "method": Method.search}, "qat_steps=3: method=search tries ranges"),
        ("ort", CPU, {"method": Method.search}, "method=search: it searches symmetric ranges"),
        ("ort", CPU, {"shift": True}, "shift=true: zero points have the same effect"),
        ("ort", CPU, {"scheme": Scheme.dynamic, "method": Method.entropy}, "method=entropy: scheme=dynamic has no"),
        ("ort", CPU, {"scheme": Scheme.dynamic, "samples": 8}, "samples=8: scheme=dynamic has no calibration"),
        (
            "ort",
            CPU,
            {"scheme": Scheme.dynamic, "smooth": 0.5},
            "smooth=0.5: it needs explicit Q/DQ in a graph; use quantization.scheme=explicit",
        ),
        ("ort", CPU, {"scheme": Scheme.dynamic, "activation": Activation.int8}, "activation=int8: it needs explicit"),
        ("torch_compile", CPU, {"scheme": Scheme.dynamic, "per_channel": False}, "8-bit weights; leave it out"),
        ("ort", CPU, {"percentile": 99.0}, "only method=percentile uses it"),
        ("ort", CPU, {"qat_rate": 1e-3}, "only training uses it"),
    ],
)
def test_a_key_without_effect_is_refused(backend: str, machine: Machine, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as refused:
        quantization_of(config(backend, **keys), machine)
    assert str(refused.value).startswith("quantization.")
    assert message in str(refused.value)


def test_fp8_refuses_keys_of_int8() -> None:
    with pytest.raises(Refused, match="qat_steps=3: it is for INT8"):
        quantization_of(config("trt", Precision.fp8, qat_steps=3), GPU)
    with pytest.raises(Refused, match="scheme=dynamic: it is for INT8"):
        quantization_of(config("trt", Precision.fp8, scheme=Scheme.dynamic), GPU)


@pytest.mark.parametrize(
    ("backend", "machine", "keys"),
    [
        ("trt_plugin", GPU, {"smooth": 0.75, "shift": True, "leave_out": ["*"], "method": Method.entropy}),
        ("trt", GPU, {"smooth": 0.75, "shift": True, "placement": Placement.gemm, "per_channel": False}),
        ("ort", CPU, {"activation": Activation.int8, "shift": True, "reduce_range": Switch.off}),
        ("ort", CPU, {"method": Method.percentile, "percentile": 99.0}),
        ("ort", CPU, {"qat_steps": 3, "qat_rate": 1e-3}),
        ("ort", CPU, {"scheme": Scheme.dynamic, "per_channel": False, "leave_out": ["*"]}),
        ("ort", CPU, {"activation": Activation.int8, "method": Method.search}),
        ("trt_plugin", GPU, {"method": Method.search, "leave_out": ["*"]}),
        ("trt", GPU, {"exact_residual": True, "method": Method.search}),
    ],
)
def test_a_key_with_an_effect_is_in_the_cell(backend: str, machine: Machine, keys: dict[str, Any]) -> None:
    quantization = quantization_of(config(backend, **keys), machine)
    assert set(keys) <= set(quantization.for_cell())


def test_dynamic_quantization_has_only_its_own_keys_in_the_cell() -> None:
    own = quantization_of(config("ort", scheme=Scheme.dynamic), Machine(Device(features=("avx2",)), "cpu"))
    assert own.for_cell() == {"scheme": "dynamic", "per_channel": True, "reduce_range": True}
    torch = config("torch_compile", scheme=Scheme.dynamic)
    assert quantizes(describe("torch_compile"), torch)
    assert not quantization_of(torch, Machine(Device(features=("avx2",)), "cpu")).for_cell()["reduce_range"]
    assert not quantizes(describe("torch_compile"), config("torch_compile"))


def test_newer_keys_at_their_defaults_are_not_in_the_cell() -> None:
    assert not {"smooth", "shift", "exact_residual", "leave_out", "tokens", "qat_steps"} & set(
        quantization_of(config("ort"), CPU).for_cell()
    )
