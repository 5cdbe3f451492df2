"""Choices for an engine of plugins, resolved from its options, and the limits of the plugins' kernels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from backends.base import BuildSpec, Unsupported
from backends.options import Switch
from backends.profiles import Profile, plan_profiles
from backends.tensorrt_.runtime.layout import PLUGIN_POSITIONS
from backends.tensorrt_.runtime.tensorrt_options import Constraints, Gelu, Part, PluginOptions

PACKED_POSITIONS = 512
"""Longest sequence, in tokens, for which packed attention has kernels."""

INT8_NORM_HIDDEN = (768, 1024)
"""Hidden sizes for which the INT8 norm has kernels, interleaved or not."""

PADDED_SEQUENCES = {"int8": (128, 384), "fp16": (64, 96, 128, 384)}
"""Sequence lengths for which fused padded attention has kernels, by type (getMHAMaskPackedSize in bertCommon.h of
NVIDIA/TensorRT). INT8 supports no other length. FP16 computes other lengths by matrix products and a softmax."""

PADDED_WRONG_SEQUENCE = 512
"""Sequence length at which padded FP16 attention gives wrong numbers. It has a fused kernel for this length, but the
embedding plugin packs no mask for the kernel."""

SCALE_MAX_EXPONENT = 60.0
"""Largest bound of the scores that INT8 attention uses in place of their maximum, see `scale_max`."""

FLOATING_POINT_NODES = {"attention": ("scores", "context"), "norms": ("attention_residual", "ffn_residual")}
"""Nodes of the graph (NODES of backends/model/layer_names.py) that are excluded from INT8 if an option is fp16, by
option."""


@dataclass(frozen=True)
class Choices:
    """Resolved choices for an engine of plugins.

    Attributes:
        packed: tokens without padding, version 2 of the plugins. Otherwise padded sequences, version 1.
        interleaved: packed, and all tensors between the embeddings and the output are INT8 with 32 interleaved channels
            (CHW32). Attention and norms are of version 3.
        half: whether computation outside INT8 is FP16; otherwise it is FP32.
        products: layer of matrix products: "convolution" (1 x 1), "matmul", "fully_connected" (8.6) or "plugin"
            (cuBLASLt, padded only).
        gelu: variant of GELU, a key of GELU_VARIANTS in backends/onnx_/gelu.py, or "plugin".
        int8_attention: whether attention reads INT8 tensors.
        int8_norms: whether the residual additions with their norms read INT8 tensors.
        positions: longest sequence, in tokens.
        sequence: length of padded sequences if there is only one, otherwise -1.
        scale_max: "auto", "on" or "off", see `scale_max`.
        unfused: profiles with lengths for which padded attention has no fused kernel.
        shift: whether the INT8 values of GELU's output are centred (backends/onnx_/gelu_shift.py).
        flat_gelu: whether GELU is computed on tensors without the two dimensions of size 1.
        obey: whether TensorRT must compute products in the requested precision.
    """

    packed: bool
    interleaved: bool
    half: bool
    products: str
    gelu: str
    int8_attention: bool
    int8_norms: bool
    positions: int
    sequence: int = -1
    scale_max: str = "auto"
    unfused: tuple[str, ...] = ()
    shift: bool = False
    flat_gelu: bool = False
    obey: bool = False

    def notes(self) -> dict[str, object]:
        """Return notes for the record: types of attention and norms, kind of products, variant of GELU, and the
        profiles with unfused padded attention."""
        floating = "fp16" if self.half else "fp32"
        return {
            "attention": "int8" if self.int8_attention else floating,
            "norms": "int8" if self.int8_norms else floating,
            "products": self.products,
            "gelu": self.gelu,
            **({"flat_gelu": True} if self.flat_gelu else {}),
            **({} if self.packed else {"attention_unfused": list(self.unfused)}),
        }

    @property
    def plain_embeddings(self) -> bool:
        """Whether plain layers embed the tokens, because the sequences are longer than the packed plugin supports."""
        return self.packed and self.positions > PLUGIN_POSITIONS

    @property
    def version(self) -> int:
        """Version of the attention and norm plugins."""
        return 3 if self.interleaved else 2 if self.packed else 1


def choices_of(spec: BuildSpec, hidden: int) -> Choices:
    """Resolve the options of `spec` for a model of this hidden size."""
    options = spec.options_as(PluginOptions)
    packed = options.packed
    gelu = _gelu(spec.precision) if options.gelu is Gelu.auto else options.gelu.name
    products = options.products.name
    if products == "auto":
        # Only a convolution can fuse the cubic GELU and have a range on its output. A matrix product cannot, because
        # its bias is a layer after it.
        products = "convolution" if spec.precision == "int8" or (packed and gelu == "cubic") else "matmul"
    profiles = plan_profiles(spec.shapes, options)
    lengths = {length for profile in profiles for length in (profile.min.sequence, profile.max.sequence)}
    sequence = lengths.pop() if len(lengths) == 1 else -1
    in_int8 = {
        "attention": packed or sequence in PADDED_SEQUENCES["int8"],
        "norms": hidden in INT8_NORM_HIDDEN,
    }
    parts = {"attention": options.attention, "norms": options.norms}
    in_int8 |= {name: part is Part.int8 for name, part in parts.items() if part is not Part.auto}
    int8_attention = spec.precision == "int8" and in_int8["attention"]
    fused = PADDED_SEQUENCES["int8" if int8_attention else "fp16"] if spec.precision != "fp32" else ()
    return Choices(
        packed=packed,
        interleaved=options.interleaved,
        half=spec.precision != "fp32",
        products=products,
        gelu=gelu,
        int8_attention=int8_attention,
        int8_norms=spec.precision == "int8" and in_int8["norms"],
        positions=max(profile.max.sequence for profile in profiles),
        sequence=-1 if packed else sequence,
        scale_max=options.scale_max.name,
        unfused=() if packed else tuple(str(profile) for profile in profiles if not _has_only(profile, fused)),
        shift=spec.quantization.shift,
        flat_gelu=options.flat_gelu,
        obey=options.constraints is Constraints.obey,
    )


def _gelu(precision: str) -> str:
    """Return the fastest variant of GELU whose error is within the rounding of the precision.

    The error of the cubic, which TensorRT fuses into the product before it, is a hundredth of an INT8 step of GELU. The
    error of the sigmoid is one step of FP16.
    """
    return {"int8": "cubic", "fp16": "sigmoid"}.get(precision, "erf")


def _has_only(profile: Profile, lengths: Collection[int]) -> bool:
    """Return whether all sequences of the profile have the same length, one of `lengths`."""
    return profile.min.sequence == profile.max.sequence and profile.min.sequence in lengths


def check_options_used(spec: BuildSpec, weak_typing: bool) -> None:
    """Check that the chosen options have an effect.

    Args:
        weak_typing: whether the release chooses the types of layers for which none is requested.

    Raises:
        Unsupported: an option would have no effect, or products would be FP16 with precision=int8.
    """
    options, int8 = spec.options_as(PluginOptions), spec.precision == "int8"
    packed, products, obey = options.packed, options.products.name, options.constraints is Constraints.obey
    for invalid, reason in (
        (not int8 and options.attention is not Part.auto,
         "plugin.attention is for precision=int8 only; leave it at auto"),
        (not int8 and options.norms is not Part.auto, "plugin.norms is for precision=int8 only; leave it at auto"),
        (not (int8 and packed) and options.scale_max is not Switch.auto,
         "plugin.scale_max is for INT8 attention over packed tokens only; leave it at auto"),
        (int8 and products in ("matmul", "plugin"),
         f"plugin.products={products} multiplies in FP16; INT8 needs convolution or fully_connected"),
        (int8 and options.gelu is Gelu.plugin,
         "plugin.gelu=plugin is for FP16 and FP32; INT8 needs another formula, such as cubic"),
        (options.flat_gelu and (options.interleaved or options.gelu is Gelu.plugin),
         "plugin.flat_gelu needs a formula of GELU in layers and tensors that are not interleaved"),
        (obey and (spec.precision == "fp32" or products == "plugin"),
         "plugin.constraints=obey is only for FP16 and INT8, and for products that TensorRT chooses kernels for"),
        (obey and not weak_typing, "this release takes types from the graph only; leave plugin.constraints at none"),
    ):  # fmt: skip
        if invalid:
            raise Unsupported(reason)


def check_padded(spec: BuildSpec) -> None:
    """Check that padded attention has correct kernels for the sequence lengths.

    Raises:
        Unsupported: padded attention has no kernels for a length, or kernels that give wrong numbers.
    """
    choices, lengths = choices_of(spec, 0), PADDED_SEQUENCES["int8"]
    if choices.packed:
        return
    if choices.int8_attention and choices.sequence not in lengths:
        supported = " or ".join(map(str, lengths))
        raise Unsupported(f"padded INT8 attention needs one sequence length, {supported}; use plugin.attention=fp16")
    if not choices.half or choices.int8_attention:
        return
    for profile in plan_profiles(spec.shapes, spec.options_as(PluginOptions)):
        if profile.min.sequence <= PADDED_WRONG_SEQUENCE <= profile.max.sequence:
            raise Unsupported(
                f"padded attention in FP16 gives wrong numbers at {PADDED_WRONG_SEQUENCE} tokens, a length in profile "
                f"{profile}; use layout=packed, or precision=fp32"
            )


def scale_max(choice: str, qkv_range: float) -> bool:
    """Return whether packed INT8 attention subtracts a bound from its scores and not their maximum.

    The field is use_int8_scale_max of the plugin, on by default. The bound is qkv_range^2 / 8. If it is far above all
    scores, their exponentials vanish.

    Args:
        choice: "auto", "on" or "off".
        qkv_range: largest absolute value of queries and keys.
    """
    return choice == "on" or (choice == "auto" and qkv_range**2 / 8 <= SCALE_MAX_EXPONENT)


def floating_nodes(options: PluginOptions) -> tuple[str, ...]:
    """Return the nodes that the options exclude from INT8. `auto` excludes none, as its result depends on the model."""
    excluded = [nodes for name, nodes in FLOATING_POINT_NODES.items() if getattr(options, name) is Part.fp16]
    return tuple(node for nodes in excluded for node in nodes)


def check_sizes(choices: Choices, positions: int, hidden: int) -> None:
    """Check the longest sequence and the hidden size against the model and the plugins.

    Args:
        positions: number of positions of the model.

    Raises:
        Unsupported: the longest sequence is too long for the plugins or the model, or no kernel has the hidden size.
    """
    if choices.positions > positions:
        raise Unsupported(
            f"sequences of {choices.positions} are longer than the model's {positions} positions; use shorter sequences"
        )
    if choices.packed and choices.positions > PACKED_POSITIONS:
        raise Unsupported(
            f"packed attention stops at {PACKED_POSITIONS} tokens; for {choices.positions} use layout=fixed"
        )
    if choices.interleaved and choices.positions > PLUGIN_POSITIONS:
        raise Unsupported(f"interleaved attention stops at {PLUGIN_POSITIONS} tokens; use plugin.interleaved=false")
    if (choices.int8_norms or choices.interleaved) and hidden not in INT8_NORM_HIDDEN:
        sizes = " and ".join(map(str, INT8_NORM_HIDDEN))
        fix = "plugin.interleaved=false" if choices.interleaved else "plugin.norms=fp16"
        raise Unsupported(f"norms in INT8 are for hidden sizes {sizes}, not {hidden}; use {fix}")


def check_exclusions(choices: Choices, excluded: Sequence[str]) -> None:
    """Check that the engine can compute `excluded` without INT8.

    Args:
        excluded: computations, "<layer>/<entry of backends/onnx_/ranges.py's COMPUTED>".

    Raises:
        Unsupported: it cannot.
    """
    if excluded and choices.interleaved:
        raise Unsupported("interleaved tensors are all INT8; quantization.leave_out needs plugin.interleaved=false")
    if choices.int8_attention and not choices.packed and any(entry.endswith("/attention") for entry in excluded):
        raise Unsupported(
            "padded attention has one mask for all layers, so all must have the same type; use plugin.attention=fp16"
        )
