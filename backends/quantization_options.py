"""Options of quantization, with their help texts. Needs CPython 3.10 and the standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from backends.config_key import cell_mapping, key
from backends.options import Switch
from backends.value_checks import Refused, at_least, between, positive

TokenKind = Enum("TokenKind", ["auto", "text", "random"])
Activation = Enum("Activation", ["auto", "int8", "uint8"])
Method = Enum("Method", ["minmax", "entropy", "percentile", "search"])
Scheme = Enum("Scheme", ["explicit", "implicit", "dynamic"])
Placement = Enum("Placement", ["auto", "all", "all_but_ffn_residual", "ffn", "gemm", "attention"])

MOST_SAMPLES = 100_000
"""Largest number of calibration sequences. Each is kept in memory as token ids."""

UNUSED = {
    Scheme.explicit: (),
    Scheme.implicit: ("placement", "percentile", "activation", "per_channel", "reduce_range"),
    Scheme.dynamic: ("placement", "method", "percentile", "samples", "sequence", "activation"),
}
"""Options that a scheme does not use. A calibrator (implicit) selects the place and the format of quantization. Ranges
of the current inputs (dynamic) need no calibration, and only products with weights are quantized."""


@dataclass
class QuantizationOptions:
    """Quantization for precision=int8 and precision=fp8; see backends/onnx_/quantize.py and dynamic_int8.py there."""

    scheme: Scheme = key(
        Scheme.explicit,
        "explicit puts Q/DQ pairs into the ONNX file. implicit: TensorRT's calibrator chooses ranges and places. "
        "dynamic (ort and torch_compile on a CPU): each pass computes the ranges of its activations; no calibration.",
    )
    placement: Placement = key(
        Placement.auto,
        "Products that get Q/DQ. gemm: all weight products; ffn: two of each layer; attention: its products; all: all "
        "products and the additions after each block; all_but_ffn_residual: all except the addition after the "
        "feed-forward block. auto: all_but_ffn_residual for TensorRT, gemm for others.",
    )
    method: Method = key(
        Method.minmax,
        "How calibration finds ranges of activations. search cuts each range to bring the outputs closer to FP32 "
        "(symmetric INT8 only).",
    )
    percentile: float = key(99.99, "Share of values in percent that method=percentile keeps inside a range.")
    samples: int = key(64, "Number of calibration texts.")
    sequence: int = key(
        128,
        "Longest calibration text in tokens. 0: texts with the lengths of the cell, up to its longest sequence.",
    )
    activation: Activation = key(
        Activation.auto,
        "Type of activations. TensorRT uses int8; x86 CPUs use uint8. auto follows the device.",
    )
    per_channel: bool = key(True, "One scale for each output channel of a weight, instead of one for the tensor.")
    reduce_range: Switch = key(
        Switch.auto, "Use 7-bit weights. auto: on for CPUs without VNNI, where 16-bit sums could saturate."
    )
    leave_out: list[str] = key(
        [],
        "Name patterns (fnmatch) of ONNX nodes that get no Q/DQ. With trt_plugin they stay in FP16.",
        added_later=True,
    )
    smooth: float = key(
        0.0,
        "SmoothQuant's alpha between 0 and 1; 0 turns it off. It moves outliers into the weights.",
        added_later=True,
    )
    shift: bool = key(
        False,
        "Centre the output of GELU before symmetric INT8, because half of its range is unused.",
        added_later=True,
    )
    exact_residual: bool = key(
        False,
        "An addition that is not quantized reads its input before the input is rounded for a quantized product.",
        added_later=True,
    )
    tokens: TokenKind = key(TokenKind.auto, "Calibration inputs: the task's text or random ids.", added_later=True)
    qat_steps: int = key(
        0,
        "Steps of training under fake quantization, with the model's own FP32 outputs as targets. 0: no training.",
        added_later=True,
    )
    qat_rate: float = key(
        1e-4, "Highest learning rate of the training (quantization.qat_steps). For trt_plugin, 3e-5 works better."
    )

    def __post_init__(self) -> None:
        between("quantization.smooth", self.smooth, 0, 1)
        at_least("quantization.qat_steps", self.qat_steps, 0)
        positive("quantization.qat_rate", self.qat_rate)
        between("quantization.samples", self.samples, 1, MOST_SAMPLES)
        if self.sequence:
            at_least("quantization.sequence", self.sequence, 2)
        if not 50 < self.percentile <= 100:
            raise Refused(f"quantization.percentile={self.percentile} must be more than 50 and at most 100")

    @property
    def explicit(self) -> bool:
        """Whether Q/DQ pairs in the graph select the quantized values, and not the calibrator of a backend."""
        return self.scheme is Scheme.explicit

    @property
    def by_role(self) -> str:
        """The first option that needs the roles of products in a layer, as on the command line; empty without one."""
        needed = {
            f"placement={self.placement.name}": self.explicit
            and self.placement not in (Placement.auto, Placement.gemm),
            f"smooth={self.smooth:g}": self.smooth > 0,
            f"shift={str(self.shift).lower()}": self.shift,
            f"method={self.method.name}": self.method is Method.search,
            f"qat_steps={self.qat_steps}": self.qat_steps > 0,
        }
        return next((f"quantization.{option}" for option, applies in needed.items() if applies), "")

    @property
    def dynamic(self) -> bool:
        """Whether each pass computes the ranges of its activations."""
        return self.scheme is Scheme.dynamic

    def for_cell(self) -> dict[str, object]:
        """Return the options as they are in a cell, in JSON types. `reduce_range` is resolved: true or false.

        An option that is not used, or that was added later and has its default, is missing.
        """
        chosen = cell_mapping(self) | {"reduce_range": self.reduce_range is Switch.on}
        unused = (*(() if self.qat_steps else ("qat_rate",)), *UNUSED[self.scheme])
        return {name: value for name, value in chosen.items() if name not in unused}
