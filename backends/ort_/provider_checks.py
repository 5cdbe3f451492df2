"""Refusals of execution providers: device, missing packages, and precisions."""

from __future__ import annotations

from backends.base import BuildSpec, Unavailable, Unsupported, versions_of
from backends.options import Switch
from backends.ort_.description import ENGINE_PROVIDERS, OrtOptions, Provider
from backends.ort_.providers import (
    INSTALLED,
    PROVIDERS,
    RTX_CAPABILITIES,
    RTX_NEWEST,
    advice,
    tensorrt_folder,
    tensorrt_major,
)
from backends.profiles import plan_profiles

BF16_FEATURES = {"avx512_bf16", "amx_bf16", "bf16"}
"""CPU features with which OpenVINO computes in BF16."""


def check_named_provider(spec: BuildSpec, provider: Provider) -> None:
    """Refuse a cell that the provider it names cannot run.

    Raises:
        Unsupported: the provider does not run on the device, or has no such precision.
        Unavailable: a package is missing; the message has the command that installs it.
    """
    facts = PROVIDERS[provider]
    if facts.device != spec.device.kind:
        wanted = "an NVIDIA GPU" if facts.device == "cuda" else "a CPU"
        raise Unsupported(
            f"ort.provider={provider.name} runs on {wanted}; use device={facts.device} or another provider"
        )
    _check_precision(spec, provider)
    if provider not in (Provider.cpu, Provider.cuda) and spec.options_as(OrtOptions).fusion is Switch.on:
        raise Unsupported(f"ort.provider={provider.name} has no kernels for fused operators; leave ort.fusion out")
    for packages in ((PROVIDERS[Provider.cuda].packages,) if facts.device == "cuda" else ()) + (facts.packages,):
        if not versions_of(packages):
            raise Unavailable(
                f"ort.provider={provider.name} needs {packages[0]}, which is not installed in this interpreter: "
                f"{advice(packages)}"
            )
    if provider is Provider.tensorrt:
        _check_tensorrt_libraries()
    if provider in ENGINE_PROVIDERS:
        plan_profiles(spec.shapes, spec.options_as(OrtOptions), "ort")


def _check_tensorrt_libraries() -> None:
    from ctypes.util import find_library

    major = tensorrt_major()
    if tensorrt_folder(major) is None and not (find_library("nvinfer") or "").endswith(f".so.{major}"):
        upper = f",<{int(major) + 1}" if major else ""
        raise Unavailable(
            f"ort.provider=tensorrt of this {INSTALLED[0]} needs TensorRT {major or '(release unknown)'}, which is not "
            f"installed in this interpreter: pip install 'tensorrt>={major or 10}{upper}'"
        )


def _check_precision(spec: BuildSpec, provider: Provider) -> None:
    precision, capability = spec.precision, spec.device.compute_capability
    if precision == "int8" and not spec.quantization.explicit and provider is not Provider.cpu:
        raise Unsupported(f"ort.provider={provider.name} reads INT8 from Q/DQ: use quantization.scheme=explicit")
    if provider is Provider.openvino:
        if precision not in ("fp32", "bf16", "int8"):
            raise Unsupported("ort.provider=openvino computes BERT in FP32, BF16 or INT8 on a CPU; choose one of them")
        if precision == "bf16" and not BF16_FEATURES & set(spec.device.features):
            raise Unsupported(f"{spec.device.name or 'this CPU'} has no BF16 instructions; use FP32 instead")
    if provider is Provider.tensorrt and precision == "fp8":
        raise Unsupported("ort.provider=tensorrt has no option for FP8; use backend=trt with TensorRT 10 or newer")
    if provider is Provider.nv_tensorrt_rtx:
        if capability not in RTX_CAPABILITIES and capability < RTX_NEWEST:
            raise Unsupported(
                f"ort.provider=nv_tensorrt_rtx does not run on {spec.device.name}, which has compute capability "
                f"{capability[0]}.{capability[1]} (supported: 8.6, 8.9, 12.0 and above); use ort.provider=tensorrt"
            )
        if precision == "bf16":
            raise Unsupported("onnxruntime's Python API cannot return BF16 outputs of a graph in BF16; use fp16")
        if precision == "fp8" and capability < (8, 9):
            raise Unsupported(f"fp8 needs compute capability 8.9; {spec.device.name} is older")
    if provider is Provider.tensorrt and precision in ("tf32", "bf16") and capability < (8, 0):
        raise Unsupported(f"{precision} needs compute capability 8.0; {spec.device.name} is older; use fp32 or fp16")
