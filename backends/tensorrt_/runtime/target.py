"""GPU that an engine is built for: the one of the cell, or one that trt.target names (TensorRT-RTX only)."""

from __future__ import annotations

from backends.base import BuildSpec, Device, Unsupported
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi
from backends.tensorrt_.runtime.tensorrt_options import (
    DynamicShapes,
    GraphStrategy,
    Target,
    TensorRTOptions,
    capability_of,
)

NAMED = tuple(target for target in Target if capability_of(target) != (0, 0))
"""Targets with a compute capability of their own."""

NEWEST = max(capability_of(target) for target in NAMED)
"""A GPU above this compute capability runs portable engines only."""


def check_target(api: TensorRTApi, spec: BuildSpec) -> None:
    """Check that the release builds for the target of `spec`, and that the device of `spec` runs the engine.

    Raises:
        Unsupported: it does not; the message names the change that helps.
    """
    can, options, device = api.can, spec.options_as(TensorRTOptions), spec.device
    if not can.named_targets:
        if options.target is not Target.device:
            raise Unsupported(
                f"trt.target={options.target.name} needs TensorRT-RTX, but this is {api.product}; run `make trt-rtx` "
                "and set interpreter.trt to its Python, or leave trt.target out"
            )
        _check_runtime_options(api, options)
        return
    target = target_of(options, device)
    if options.hardware_compatible or options.version_compatible:
        name = "hardware_compatible" if options.hardware_compatible else "version_compatible"
        raise Unsupported(f"trt.{name} is not for TensorRT-RTX; use trt.target=portable for engines of several GPUs")
    if target is not Target.portable and capability_of(target) != device.compute_capability:
        raise Unsupported(
            f"trt.target={target.name} is not for {device.name}, which has compute capability "
            f"{_text(device.compute_capability)}; add until=build to build only, or leave trt.target out"
        )


def _check_runtime_options(api: TensorRTApi, options: TensorRTOptions) -> None:
    """Check that the release has the options of sessions that differ from their defaults."""
    chosen = {
        f"dynamic_shapes={options.dynamic_shapes.name}": options.dynamic_shapes is not DynamicShapes.auto,
        "runtime_cache=true": options.runtime_cache,
        f"graphs={options.graphs.name}": options.graphs is not GraphStrategy.suite,
    }
    for text, given in chosen.items():
        if given and not api.can.runtime_strategies:
            raise Unsupported(f"trt.{text} needs TensorRT-RTX, but this is {api.product}; leave it out")


def target_of(options: TensorRTOptions, device: Device) -> Target:
    """Return the target of an engine: the one in the options, or the one of `device`.

    Raises:
        Unsupported: TensorRT-RTX does not run on `device`.
    """
    capability = device.compute_capability
    own = [target for target in NAMED if capability_of(target) == capability]
    if not own and capability <= NEWEST:
        supported = ", ".join(_text(capability_of(target)) for target in NAMED)
        raise Unsupported(
            f"TensorRT-RTX does not run on {device.name}, which has compute capability {_text(capability)} (supported: "
            f"{supported} and above); set interpreter.trt to a Python with the package tensorrt"
        )
    if options.target is not Target.device:
        return options.target
    return own[0] if own else Target.portable


def builds_without_gpu(spec: BuildSpec) -> bool:
    """Return whether the device of `spec` is only named, so that its engine cannot be opened here."""
    return spec.options_as(TensorRTOptions).target is not Target.device and not spec.device.uuid


def _text(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
