"""Resolve groups of options: replace `auto` and empty defaults, and check options that several groups decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from backends.config_key import to_json_types
from backends.description import BackendDescription
from backends.options import BackendOptions, Layout, Switch
from backends.quantization_options import Activation, Method, QuantizationOptions, Scheme
from backends.registry import describe, descriptions
from suites.measuring.machine import Machine
from suites.schema.config import RunConfig
from suites.schema.enums import Precision
from suites.schema.refusals import Refused, no_such_choice


def chosen_backend(name: str) -> BackendDescription:
    """Return the description of a backend that the command line names.

    Raises:
        Refused: there is no such backend.
    """
    if name not in descriptions():
        raise Refused(no_such_choice("backend", name, descriptions()))
    return descriptions()[name]


def backend_options(config: RunConfig) -> BackendOptions:
    """Return the options of the selected backend only.

    Raises:
        Refused: values contradict one another, or an option is not for this backend.
    """
    backend = describe(config.backend)
    if config.keep_fp32 and "keep_fp32" not in {item.name for item in fields(backend.options)}:
        others = [name for name, other in descriptions().items() if "keep_fp32" in other.keeps_parts_by]
        raise Refused(
            f"keep_fp32 is for backend={' and '.join(others)}; backend={backend.name} cannot keep parts in FP32, so "
            "leave it out"
        )
    options = backend.options.resolved(config, {name: getattr(config, name) for name in backend.groups})
    multiple = config.pad_to_multiple_of
    rounding = [name for name, other in descriptions().items() if _rounds_tokens(other)]
    packed = backend.name in rounding and getattr(options, "layout", Layout.packed) is Layout.packed
    if multiple > 1 and not packed:
        raise Refused(
            f"pad_to_multiple_of={multiple} is for packed tokens: use {' or '.join(rounding)}, with layout=packed"
        )
    return options


def _rounds_tokens(backend: BackendDescription) -> bool:
    return any(item.name == "pad_to_multiple_of" for item in fields(backend.options))


def quantization_of(config: RunConfig, machine: Machine) -> QuantizationOptions:
    """Return the quantization options with `auto` resolved.

    On a GPU activations are signed and symmetric, as TensorRT needs. x86 CPUs multiply unsigned by signed bytes (INT8).
    Without VNNI the 16-bit sums of two such products can saturate. Weights of 7 bits avoid it (onnxruntime's
    quantization guide).

    Raises:
        Refused: the selected backend or method does not use an option.
    """
    fp8, chosen = config.precision is Precision.fp8, config.quantization
    on_cpu = machine.device.kind == "cpu" and not fp8
    _check_used(config, on_cpu)
    saturates = on_cpu and not {"avx_vnni", "avx512_vnni", "asimddp"} & set(machine.device.features)
    activation, placement, reduce_range = chosen.activation, chosen.placement, chosen.reduce_range
    if activation.name == "auto":
        activation = Activation.uint8 if on_cpu else Activation.int8
    if placement.name == "auto":
        placement = describe(config.backend).placement
    if reduce_range is Switch.auto:
        used = "reduce_range" not in describe(config.backend).unused_quantization
        reduce_range = Switch.on if saturates and used else Switch.off
    return replace(chosen, activation=activation, placement=placement, reduce_range=reduce_range)


def _check_used(config: RunConfig, on_cpu: bool) -> None:
    """Check that every option with another value than its default is used.

    An option without effect would give a second cell with the same computation.
    """
    chosen, defaults = config.quantization, QuantizationOptions()
    changed = {name for name, value in vars(defaults).items() if getattr(chosen, name) != value}
    backend = describe(config.backend)
    fp8 = config.precision is Precision.fp8
    own = backend.unused_fp8 if fp8 and backend.unused_fp8 else backend.unused_quantization
    for name, reason in (*own.items(), *_unused(config, on_cpu)):
        option, _, value = name.partition("=")
        typed = to_json_types(getattr(chosen, option))
        if option in changed and value in ("", typed):
            shown = str(typed).lower() if isinstance(typed, bool) else typed
            remedy = "" if ";" in reason else "; leave it out"
            raise Refused(f"quantization.{option}={shown}: {reason}{remedy}")


def _unused(config: RunConfig, on_cpu: bool) -> Iterator[tuple[str, str]]:
    """Yield the options of quantization that have no effect with the other options, each with the reason."""
    chosen = config.quantization
    unsigned = chosen.activation is Activation.uint8 or (chosen.activation is Activation.auto and on_cpu)
    implicit, dynamic = chosen.scheme is Scheme.implicit, chosen.dynamic
    unused = (
        (not chosen.explicit, ("placement", "smooth", "shift", "exact_residual", "qat_steps", "activation"),
         "it needs explicit Q/DQ in a graph; use quantization.scheme=explicit"),
        (implicit, ("leave_out", "per_channel", "reduce_range"),
         "it needs explicit Q/DQ in a graph; use quantization.scheme=explicit"),
        (dynamic, ("method", "percentile", "samples", "sequence", "tokens"),
         "scheme=dynamic has no calibration; leave it out or use quantization.scheme=explicit"),
        (dynamic and config.precision is Precision.fp8, ("scheme",),
         "it is for INT8; use quantization.scheme=explicit"),
        (implicit and chosen.method in (Method.percentile, Method.search), ("method",),
         "scheme=implicit does not have it; use minmax or entropy"),
        (config.precision is Precision.fp8, ("qat_steps", "shift", "method", "per_channel", "activation",
         "reduce_range"), "it is for INT8; FP8 has one scale for each tensor"),
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
        yield from ((name, reason) for name in names if applies)
