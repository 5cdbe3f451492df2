"""FasterTransformer's operators of PyTorch: load the library, and open an encoder with weights on the GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from backends.base import Array, Unavailable, Unsupported
from backends.faster_transformer_.int8_scales import weight_ranges
from backends.faster_transformer_.operator_weights import ARGUMENTS, PRODUCTS

Encoder = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Function from hidden states [batch, sequence, hidden] and numbers of tokens [batch], int32, to hidden states. With
removal of padding, the values of padding are undefined."""


@dataclass(frozen=True)
class EncoderChoices:
    """Settings of an encoder.

    Attributes:
        heads, head_size: sizes of attention.
        remove_padding: whether products leave out padding.
        dtype: type of its inputs, outputs and biases.
        device: "cuda"; tests without a GPU use "cpu".
    """

    heads: int
    head_size: int
    remove_padding: bool
    dtype: torch.dtype
    device: str = "cuda"


def load_operators(library: Path) -> None:
    """Load libth_transformer.so, which registers its operators.

    Raises:
        Unavailable: the library cannot be loaded with this PyTorch, or has no operator of BERT.
    """
    advice = f"build it with this Python and PyTorch {torch.__version__}"
    try:
        torch.classes.load_library(str(library))
    except OSError as error:
        raise Unavailable(f"{library.name} cannot be loaded: {_line(error.__cause__ or error)}; {advice}") from error
    try:
        torch.classes.FasterTransformer.Bert  # noqa: B018  the access looks the class up
    except RuntimeError as error:
        raise Unavailable(
            f"{library.name} has no class FasterTransformer.Bert; {advice}, with -DBUILD_PYT=ON"
        ) from error


def open_encoder(weights: Mapping[str, Array], choices: EncoderChoices) -> Encoder:
    """Return an encoder in FP32, FP16 or BF16.

    Args:
        weights: see backends/faster_transformer_/operator_weights.py.

    Raises:
        Unsupported: the library was built without this type.
    """
    tensors = [torch.from_numpy(weights[name]).to(choices.device, choices.dtype) for name in ARGUMENTS]
    layers, inner = len(weights["up_bias"]), weights["up_bias"].shape[1]
    sparse, score_scaling, tensor_parallel, pipeline_parallel = False, 1.0, 1, 1
    try:
        operator = torch.classes.FasterTransformer.Bert(
            *tensors,
            choices.heads,
            choices.head_size,
            inner,
            choices.remove_padding,
            layers,
            sparse,
            score_scaling,
            tensor_parallel,
            pipeline_parallel,
        )
    except RuntimeError as error:
        if "Wrong Tensor type" not in str(error):
            raise
        raise Unsupported(f"this library was built without {choices.dtype}; use precision=fp16 or fp32") from error
    run: Encoder = operator.forward
    return run


def open_int8_encoder(weights: Mapping[str, Array], scales: Array, mode: int, choices: EncoderChoices) -> Encoder:
    """Return an encoder in INT8, with inputs and outputs in FP16.

    Args:
        weights: see backends/faster_transformer_/operator_weights.py.
        scales: see `scale_list` in backends/faster_transformer_/int8_scales.py.
        mode: 1 or 2, see FasterTransformerKeys.
    """
    tensors = [
        _quantized(weights[name], mode, choices.device)
        if name.removesuffix("_kernel") in PRODUCTS
        else torch.from_numpy(weights[name]).to(choices.device, choices.dtype)
        for name in ARGUMENTS
    ]
    layers, sparse, score_scaling = len(scales), False, 1.0
    # The library reads the list both on the GPU and on the host.
    on_host = torch.from_numpy(scales)
    operator = torch.classes.FasterTransformer.INT8Bert(
        *tensors,
        on_host.to(choices.device),
        on_host,
        choices.heads,
        choices.head_size,
        choices.remove_padding,
        layers,
        mode,
        sparse,
        score_scaling,
    )
    run: Encoder = operator.forward
    return run


def _quantized(kernels: Array, mode: int, device: str) -> torch.Tensor:
    """Return INT8 kernels in the layout of the library's products, as memory of FP16 tensors [layers, values]."""
    sparse = False
    quantize = torch.ops.fastertransformer.weight_quantize
    return torch.stack(
        [
            quantize(
                torch.from_numpy(kernel).to(device), torch.from_numpy(weight_ranges(kernel, mode)).to(device), sparse
            )
            for kernel in kernels
        ]
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
