"""Resolve groups of options: check values, replace `auto` and empty defaults, and drop options that have no effect.

The results become part of the cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backends.cache import digest_of
from suites.measuring.machine import Machine
from suites.schema.config import QuantizationConfig, RunConfig, to_json_types
from suites.schema.enums import Activation, Layout, Method, Precision, Scheme
from suites.schema.refusals import Refused, at_least, between, is_file, positive

MOST_SAMPLES = 100_000
"""Largest number of calibration sequences. Each is kept in memory as token ids."""


def backend_options(config: RunConfig) -> dict[str, Any]:
    """Return the options of the selected backend only. They are part of the cell.

    Raises:
        Refused: a value is out of range, or an option is not for this backend.
    """
    name = config.backend.name
    for key, milliseconds in asdict(config.null).items():
        if key.endswith("_ms"):
            at_least(f"null.{key}", milliseconds, 0)
    for factor in config.null.process_factors:
        positive("null.process_factors", factor)
    owners: dict[str, Any] = {"null": config.null, "ort": config.ort, "torch_compile": config.torch}
    if config.keep_fp32 and name not in ("trt", "trt_plugin", "torch_eager"):
        raise Refused(
            f"keep_fp32 is for backend=trt and torch_eager; backend={name} cannot keep parts in FP32, so leave it out"
        )
    padding = _padding(config)
    if name == "trt":
        return _tensorrt(config)
    if name == "torch_eager":
        return {"keep_fp32": list(config.keep_fp32)} if config.keep_fp32 else {}
    if name == "trt_plugin":
        chosen = to_json_types(asdict(config.plugin))
        # Newer options are left out at their defaults, so that ids of older cells stay the same.
        for key, default in {"scale_max": "auto", "constraints": "none"}.items():
            if chosen[key] == default:
                del chosen[key]
        return {**_tensorrt(config), "layout": config.layout.name, **chosen, **padding}
    chosen = to_json_types(asdict(owners[name])) if name in owners else padding
    if not chosen.get("process_factors", True):
        del chosen["process_factors"]
    return chosen


def _padding(config: RunConfig) -> dict[str, int]:
    """Return `pad_to_multiple_of` (tokens of a packed batch) if it is greater than 1; else nothing."""
    multiple = at_least("pad_to_multiple_of", config.pad_to_multiple_of, 1)
    packed = {"trt_plugin": config.layout is Layout.packed, "torch_packed": True}
    if multiple == 1:
        return {}
    if not packed.get(config.backend.name):
        raise Refused(
            f"pad_to_multiple_of={multiple} is for packed tokens: use torch_packed, or trt_plugin with layout=packed"
        )
    return {"pad_to_multiple_of": multiple}


def _tensorrt(config: RunConfig) -> dict[str, Any]:
    """Return TensorRT's options. `min`, `opt` and `max` of the dynamic profile are resolved, as [batch, sequence]."""
    chosen = to_json_types(asdict(config.trt))
    largest = [max(config.batch), max(config.sequence)]
    chosen["min"] = chosen["min"] or [1, min(16, *config.sequence)]
    chosen["max"] = chosen["max"] or largest
    chosen["opt"] = chosen["opt"] or chosen["max"]
    for name in ("min", "opt", "max"):
        if len(chosen[name]) != 2 or min(chosen[name]) < 1:
            raise Refused(f"trt.{name}={chosen[name]} must be a batch and a sequence length, e.g. trt.{name}=[1,128]")
    for axis, (lower, optimum, upper) in enumerate(zip(chosen["min"], chosen["opt"], chosen["max"], strict=True)):
        if not lower <= optimum <= upper:
            axis_name = ("batch", "sequence")[axis]
            raise Refused(
                f"trt.min, trt.opt and trt.max must not decrease; their {axis_name} is {lower}, {optimum}, {upper}"
            )
    between("trt.optimization_level", chosen["optimization_level"], 0, 5)
    if chosen["refit"] and chosen["version_compatible"]:
        raise Refused("TensorRT cannot build an engine that is both refittable and version compatible; choose one")
    chosen["plugin_libraries"] = [_library(path) for path in chosen["plugin_libraries"]]
    _check_ranges(config)
    if config.trt.engines.name == "per_shape" and config.profiles.name != "per_shape":
        raise Refused("trt.engines=per_shape builds an engine for each shape, so use profiles=per_shape")
    # Newer options are left out at their defaults, so that ids of older cells stay the same.
    defaults = {"ranges": [], "contexts": "one", "engines": "one", "timing_iterations": 0, "memory_mb": 0}
    for name, default in defaults.items():
        if chosen[name] == default:
            del chosen[name]
    at_least("trt.timing_iterations", config.trt.timing_iterations, 0)
    at_least("trt.workspace_mb", chosen["workspace_mb"], 0)
    at_least("trt.memory_mb", config.trt.memory_mb, 0)
    at_least("trt.aux_streams", chosen["aux_streams"], -1)
    return {"profiles": config.profiles.name, "keep_fp32": list(config.keep_fp32), **chosen}


def _library(path: str) -> str:
    """Return the absolute path of a shared library: workers run in other folders."""
    if not is_file(path):
        raise Refused(f"trt.plugin_libraries has {path}, which is not a file; give paths of shared libraries")
    return str(Path(path).resolve())


def libraries_by_digest(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options for a cell: a library is given by its file name and a digest of its content."""
    libraries = [Path(path) for path in options.get("plugin_libraries", ())]
    if not libraries:
        return dict(options)
    return {**options, "plugin_libraries": [f"{path.name} {digest_of(path)[:16]}" for path in libraries]}


def _check_ranges(config: RunConfig) -> None:
    """Check that no range of profiles=ranges is empty and that ranges do not overlap."""
    ranges = config.trt.ranges
    if bool(ranges) != (config.profiles.name == "ranges"):
        raise Refused("profiles=ranges and trt.ranges=[[batch,sequence,batch,sequence],...] need each other; give both")
    for number, ends in enumerate(ranges, 1):
        if len(ends) != 4 or min(ends) < 1:
            raise Refused(f"trt.ranges: number {number} is {list(ends)}, not [batch,sequence,batch,sequence]")
        if ends[0] > ends[2] or ends[1] > ends[3]:
            raise Refused(f"trt.ranges: number {number}, {list(ends)}, is empty: the smallest shape comes first")
        for earlier, earlier_ends in enumerate(ranges[: number - 1], 1):
            corner = [max(ends[axis], earlier_ends[axis]) for axis in (0, 1)]
            if all(corner[axis] <= min(ends[axis + 2], earlier_ends[axis + 2]) for axis in (0, 1)):
                raise Refused(f"trt.ranges: numbers {earlier} and {number} overlap: both have {corner[0]}x{corner[1]}")


def quantization_of(config: RunConfig, machine: Machine) -> dict[str, Any]:
    """Return the quantization settings with `auto` resolved.

    On a GPU activations are signed and symmetric, as TensorRT needs. x86 CPUs multiply unsigned by signed bytes.
    Without VNNI the 16-bit sums of two such products can saturate. Weights of 7 bits avoid it (onnxruntime's
    quantization guide).

    Raises:
        Refused: a value is out of range, or the selected backend or method does not use an option.
    """
    on_cpu = machine.device.kind == "cpu"
    _check_used(config, on_cpu)
    chosen = to_json_types(asdict(config.quantization))
    if chosen["activation"] == "auto":
        chosen["activation"] = "uint8" if on_cpu else "int8"
    if chosen["placement"] == "auto" and config.backend.name != "trt_plugin":
        chosen["placement"] = "all_but_ffn_residual" if config.backend.name == "trt" else "gemm"
    between("quantization.smooth", chosen["smooth"], 0, 1)
    at_least("quantization.qat_steps", chosen["qat_steps"], 0)
    positive("quantization.qat_rate", chosen["qat_rate"])
    if not chosen["qat_steps"]:
        del chosen["qat_steps"], chosen["qat_rate"]
    # Newer options are left out at their defaults, so that ids of older cells stay the same.
    for name, default in {
        "leave_out": [],
        "smooth": 0.0,
        "shift": False,
        "exact_residual": False,
        "tokens": "auto",
    }.items():
        if chosen[name] == default:
            del chosen[name]
    saturates = on_cpu and not {"avx_vnni", "avx512_vnni", "asimddp"} & set(machine.device.features)
    switch = chosen["reduce_range"]
    chosen["reduce_range"] = saturates if switch == "auto" else switch == "on"
    between("quantization.samples", chosen["samples"], 1, MOST_SAMPLES)
    at_least("quantization.sequence", chosen["sequence"], 2)
    if not 50 < chosen["percentile"] <= 100:
        raise Refused(f"quantization.percentile={chosen['percentile']} must be more than 50 and at most 100")
    if chosen["scheme"] == "implicit":
        # A calibrator does not use options for the place and the format of Q/DQ.
        for name in ("placement", "percentile", "activation", "per_channel", "reduce_range"):
            del chosen[name]
    return chosen  # type: ignore[no-any-return]


def _check_used(config: RunConfig, on_cpu: bool) -> None:
    """Check that every option with another value than its default is used.

    An option without effect would give a second cell with the same computation.
    """
    chosen, defaults = config.quantization, QuantizationConfig()
    changed = {name for name, value in vars(defaults).items() if getattr(chosen, name) != value}
    tensorrt = config.backend.name in ("trt", "trt_plugin")
    unsigned = chosen.activation is Activation.uint8 or (chosen.activation is Activation.auto and on_cpu)
    unused = (
        (config.backend.name == "trt_plugin", ("placement", "per_channel", "reduce_range"),
         "an engine of plugins does not use it; see plugin.attention, plugin.norms, quantization.leave_out"),
        (tensorrt and chosen.activation is Activation.uint8, ("activation",),
         "TensorRT reads no zero points; use auto"),
        (config.backend.name == "trt_plugin", ("exact_residual",),
         "norms of plugins read the residual without quantization; see plugin.norms"),
        (chosen.scheme is Scheme.implicit, ("placement", "leave_out", "smooth", "shift", "exact_residual", "qat_steps",
         "per_channel", "activation", "reduce_range"), "it needs explicit Q/DQ in a graph; use scheme=explicit"),
        (chosen.scheme is Scheme.implicit and chosen.method in (Method.percentile, Method.search), ("method",),
         "scheme=implicit does not have it; use minmax or entropy"),
        (config.precision is Precision.fp8, ("qat_steps", "shift", "method", "per_channel", "activation",
         "reduce_range"), "it is for INT8; FP8 is per tensor, by the distribution of the values"),
        (chosen.method is not Method.percentile, ("percentile",), "only method=percentile uses it"),
        (chosen.qat_steps > 0, ("smooth", "shift"), "training learns ranges for unchanged tensors; choose one"),
        (chosen.method is Method.search, ("smooth", "shift", "qat_steps"),
         "method=search tries ranges on the unchanged model; choose one"),
        (chosen.method is Method.search and unsigned, ("method",),
         "it searches symmetric ranges; use quantization.activation=int8"),
        (chosen.qat_steps == 0, ("qat_rate",), "only training uses it; give quantization.qat_steps"),
        (unsigned, ("shift",), "zero points have the same effect; use quantization.activation=int8"),
    )  # fmt: skip
    for applies, names, reason in unused:
        for name in names if applies else ():
            if name in changed:
                raise Refused(f"quantization.{name}={to_json_types(getattr(chosen, name))}: {reason}")
