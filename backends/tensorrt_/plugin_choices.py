"""What of an engine of plugins can be chosen, and what its kernels hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.base import BuildSpec, Unsupported
from backends.tensorrt_.layout import PLUGIN_POSITIONS
from backends.tensorrt_.profiles import Profile, plan_profiles

PACKED_POSITIONS = 512
"""The longest sequence that packed attention has kernels for."""

INT8_NORM_HIDDEN = (768, 1024)
"""The hidden sizes that the INT8 norm has kernels for, interleaved or not."""

PADDED_SEQUENCES = {"int8": (128, 384), "fp16": (64, 96, 128, 384)}
"""The lengths that fused attention over padded sequences has kernels for, by type (getMHAMaskPackedSize in bertCommon.h
of NVIDIA/TensorRT). INT8 knows no other; FP16 computes others by products and a softmax."""

PADDED_WRONG = 512
"""There fused FP16 attention has a kernel, but the embedding plugin packs no mask for it: wrong numbers."""


SCALE_MAX_EXPONENT = 60.0
"""The largest that INT8 attention may assume of scores before it takes the largest that there is, see `scale_max`."""
FLOATING = {"attention": ("scores", "context"), "norms": ("attention_residual", "ffn_residual")}
"""What an option of FP16 leaves out of INT8, by the nodes of the graph (backends/quantize.py's NODES)."""


@dataclass(frozen=True)
class Choices:
    """What of an engine of plugins can be chosen.

    Attributes:
        packed: no padding: version 2 of the plugins; else version 1.
        interleaved: packed, and INT8 throughout with 32 channels beside one another (CHW32): version 3 of attention
            and norm, without an FP16 tensor between the embeddings and the output.
        half: compute in FP16 where INT8 does not; else FP32.
        products: "convolution" (1 x 1), "matmul", "fully_connected" (8.6) or "plugin" (cuBLASLt, padded only).
        gelu: a form of backends/gelu.py.
        int8_attention, int8_norms: whether attention, and the additions with their norms, take INT8 tensors too.
        positions: the longest sequence.
        sequence: the only length of padded sequences, -1 where there are several.
        scale_max: "auto", "on" or "off", see `scale_max`.
        unfused: the profiles in which padded attention has no fused kernel for every length.
        shift: whether what INT8 keeps of GELU is centred (backends/shift.py).
        obey: whether products are held to the precision.
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
    obey: bool = False

    def notes(self) -> dict[str, Any]:
        """What attention and norms compute in, how weights are multiplied, GELU's form, and where padded attention is
        not fused."""
        plain = "fp16" if self.half else "fp32"
        return {
            "attention": "int8" if self.int8_attention else plain,
            "norms": "int8" if self.int8_norms else plain,
            "products": self.products,
            "gelu": self.gelu,
            **({} if self.packed else {"attention_unfused": list(self.unfused)}),
        }

    @property
    def plain_embeddings(self) -> bool:
        """Whether plain layers embed the tokens: the packed plugin stops at some position."""
        return self.packed and self.positions > PLUGIN_POSITIONS

    @property
    def version(self) -> int:
        """Of the attention and norm plugins."""
        return 3 if self.interleaved else 2 if self.packed else 1


def choices_of(spec: BuildSpec, hidden: int) -> Choices:
    """What the options of `spec` come to for a model of this hidden size."""
    options, packed = spec.options, spec.options["layout"] == "packed"
    gelu = _gelu(spec.precision) if options["gelu"] == "auto" else options["gelu"]
    products = options["products"]
    if products == "auto":
        # Only a convolution ends with the cubic, and has a range on what it gives: a product's bias comes after it.
        products = "convolution" if spec.precision == "int8" or (packed and gelu == "cubic") else "matmul"
    profiles = plan_profiles(spec.shapes, options)
    lengths = {length for held in profiles for length in (held.low.sequence, held.high.sequence)}
    sequence = lengths.pop() if len(lengths) == 1 else -1
    in_int8 = {
        "attention": packed or sequence in PADDED_SEQUENCES["int8"],
        "norms": hidden in INT8_NORM_HIDDEN,
    }
    in_int8 |= {name: options[name] == "int8" for name in in_int8 if options[name] != "auto"}
    int8_attention = spec.precision == "int8" and in_int8["attention"]
    fused = PADDED_SEQUENCES["int8" if int8_attention else "fp16"] if spec.precision != "fp32" else ()
    return Choices(
        packed=packed,
        interleaved=options["interleaved"],
        half=spec.precision != "fp32",
        products=products,
        gelu=gelu,
        int8_attention=int8_attention,
        int8_norms=spec.precision == "int8" and in_int8["norms"],
        positions=max(held.high.sequence for held in profiles),
        sequence=-1 if packed else sequence,
        scale_max=options.get("scale_max", "auto"),
        unfused=() if packed else tuple(str(held) for held in profiles if not _within(held, fused)),
        shift=bool(spec.quantization.get("shift")),
        obey=options.get("constraints", "none") == "obey",
    )


def _gelu(precision: str) -> str:
    """The fastest that is within what the precision rounds by: the cubic, which TensorRT makes part of the product
    before it, is off by a hundredth of INT8's steps of GELU; the sigmoid by one step of FP16."""
    return {"int8": "cubic", "fp16": "sigmoid"}.get(precision, "erf")


def _within(profile: Profile, lengths: Collection[int]) -> bool:
    return profile.low.sequence == profile.high.sequence and profile.low.sequence in lengths


def check_read(spec: BuildSpec, weak_typing: bool) -> None:
    """
    Args:
        weak_typing: whether the release chooses types itself where it is not told.

    Raises:
        Unsupported: an option that nothing would read, or products that INT8 would leave in FP16.
    """
    options, int8 = spec.options, spec.precision == "int8"
    packed, products, obey = options["layout"] == "packed", options["products"], options.get("constraints") == "obey"
    for holds, reason in (
        (not int8 and options["attention"] != "auto", "plugin.attention is of precision=int8; leave it at auto"),
        (not int8 and options["norms"] != "auto", "plugin.norms is of precision=int8; leave it at auto"),
        (not (int8 and packed) and options.get("scale_max", "auto") != "auto",
         "plugin.scale_max is of INT8 attention over packed tokens; leave it at auto"),
        (int8 and products in ("matmul", "plugin"),
         f"plugin.products={products} multiplies in FP16; INT8 wants convolution or fully_connected"),
        (obey and (spec.precision == "fp32" or products == "plugin"),
         "plugin.constraints=obey is of FP16 and INT8, and of products that TensorRT chooses kernels for"),
        (obey and not weak_typing, "this release takes types from the graph only; leave plugin.constraints at none"),
    ):  # fmt: skip
        if holds:
            raise Unsupported(reason)


def check_padded(spec: BuildSpec) -> None:
    """
    Raises:
        Unsupported: padded attention has no kernels for a length, or wrong ones.
    """
    choices, lengths = choices_of(spec, 0), PADDED_SEQUENCES["int8"]
    if choices.packed:
        return
    if choices.int8_attention and choices.sequence not in lengths:
        only = " or ".join(map(str, lengths))
        raise Unsupported(f"padded attention in INT8 wants one sequence length, {only}; use plugin.attention=fp16")
    for held in plan_profiles(spec.shapes, spec.options) if choices.half and not choices.int8_attention else ():
        if held.low.sequence <= PADDED_WRONG <= held.high.sequence:
            raise Unsupported(
                f"padded attention in FP16 gives wrong numbers at {PADDED_WRONG} tokens, which profile {held} holds; "
                "use layout=packed, or precision=fp32"
            )


def scale_max(chosen: str, reach: float) -> bool:
    """Whether packed INT8 attention subtracts from its scores, instead of their largest, what `reach`, the range of
    queries and keys, says of them: reach^2 / 8 (the plugin's use_int8_scale_max, on by default). Where that is far
    above all scores, their exponentials vanish."""
    return chosen == "on" or (chosen == "auto" and reach**2 / 8 <= SCALE_MAX_EXPONENT)


def floating_nodes(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Nodes that INT8 is told to leave alone. `auto` tells nothing: what it comes to depends on the model's size."""
    return tuple(node for part, nodes in FLOATING.items() if options[part] == "fp16" for node in nodes)


def check_sizes(choices: Choices, positions: int, hidden: int) -> None:
    """
    Raises:
        Unsupported: the plugins cannot hold the longest sequence, or the model has no position for it, or no kernel
            has its hidden size.
    """
    if choices.positions > positions:
        raise Unsupported(f"sequences of {choices.positions} are longer than the model's {positions} positions")
    if choices.packed and choices.positions > PACKED_POSITIONS:
        raise Unsupported(
            f"packed attention stops at {PACKED_POSITIONS} tokens; for {choices.positions} use layout=fixed"
        )
    if choices.interleaved and choices.positions > PLUGIN_POSITIONS:
        raise Unsupported(f"interleaved attention stops at {PLUGIN_POSITIONS} tokens; use plugin.interleaved=false")
    if (choices.int8_norms or choices.interleaved) and hidden not in INT8_NORM_HIDDEN:
        sizes = " and ".join(map(str, INT8_NORM_HIDDEN))
        repair = "plugin.interleaved=false" if choices.interleaved else "plugin.norms=fp16"
        raise Unsupported(f"norms in INT8 are for hidden sizes {sizes}, not {hidden}; use {repair}")


def check_left(choices: Choices, left: Sequence[str]) -> None:
    """
    Raises:
        Unsupported: what INT8 is to leave out (see backends/ranges.py) has no way around it.
    """
    if left and choices.interleaved:
        raise Unsupported("interleaved tensors are INT8 throughout; quantization.leave_out wants interleaved=false")
    if choices.int8_attention and not choices.packed and any(place.endswith("/attention") for place in left):
        raise Unsupported("padded attention has one mask for all layers; leave it out by plugin.attention=fp16")
