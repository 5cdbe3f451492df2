"""Classes of kernels: by the name of a kernel, node or layer, and by the type of an operator.

Names are those of PyTorch, Inductor and Triton, ONNX Runtime, TensorRT and Myelin, cuBLAS, cuDNN and CUTLASS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from backends.kernel_times import KernelTime

PRODUCTS, ATTENTION, NORMS = "products", "attention", "norms and residuals"
ACTIVATION, REFORMAT, OTHER, IDLE = "activation", "reformat", "other", "idle"

CLASSES = (PRODUCTS, ATTENTION, NORMS, ACTIVATION, REFORMAT, OTHER)
"""Classes of kernels. Idle is the time without any."""

ONNX_REFORMAT = (
    "Cast|Concat|DequantizeLinear|DynamicQuantizeLinear|Expand|Flatten|Identity|QuantizeLinear|ReorderInput|"
    "ReorderOutput|Reshape|Slice|Split|Squeeze|Transpose|Unsqueeze"
)

IN_ATTENTION = r"(self|attn|attention|self_attn|self_attention|mha)/(MatMul|Softmax|Add|Mul|Div|Where)(_\d+)?(/|$)"
"""Nodes of the module that computes attention. Its linear layers are modules of their own below it."""

FUSED = r"triton_(poi|per|red)_|cpp_fused|_fused_.*(poi|per|red)"
"""Kernels that Inductor makes from operators that are no products. Their names list the operators."""

KINDS = (
    (REFORMAT, rf"^({ONNX_REFORMAT})$"),
    (ATTENTION, r"Attention$|attention|^Softmax$|^aten::(_?softmax|_safe_softmax)"),
    (PRODUCTS, r"^(QLinear|FusedGemm|Gemm|Conv)"),
    (NORMS, r"Normalization$"),
    (ACTIVATION, r"Gelu|^(Erf|Tanh|Relu)$"),
)
"""Patterns of types of operators, which decide before names do. The first that matches gives the class."""

NAMES = (
    (OTHER, r"ForeignNode"),
    (REFORMAT, r"^Reformatting CopyNode|copyVectorizedKernel|genericReformat|permutationKernel|^Mem(cpy|set)"),
    (REFORMAT, r"_(Quantize|Dequantize)Linear"),
    (ATTENTION, rf"mha|fmha|flash|attention$|scaled_dot_product|_sdpa|[Ss]oftmax|ExpSum|{IN_ATTENTION}"),
    (NORMS, rf"({FUSED}).*(layer_norm|rms_norm|_mean_|var_mean)"),
    (ACTIVATION, rf"({FUSED}).*(gelu|erf|silu|tanh|relu)"),
    (NORMS, rf"({FUSED}).*_add"),
    (REFORMAT, rf"({FUSED}).*(_to_copy|clone|permute|view|transpose|quantize|constant_pad|cat)"),
    (OTHER, FUSED),
    (
        PRODUCTS,
        r"gemm|xmma|cutlass|nvjet|cublas|splitK|matmul|triton_tem|[Mm]at_?[Mm]ul|Gemm|/(qkv|attended|up|down)\b",
    ),
    (PRODUCTS, r"^aten::(addmm|mm|bmm|baddbmm|linear|_int_mm|_scaled_mm)|linear_pointwise|::qlinear|_linear\b"),
    (PRODUCTS, r"/(query|key|value|qkv|Wqkv|dense|q|k|v|o|fc\d|Wi|Wo)/Add"),
    (NORMS, r"[Ll]ayer_?[Nn]orm|LayerNorm|rms_?norm|RMSNorm|skipln|_norm$|Mea|Sqr|(^|/)Add(_\d+)?$"),
    (ACTIVATION, r"[Gg]elu|GELU|Erf|erf|silu|[Tt]anh|PWN|NativePointwise|act_fn/|activation/|(^|/)act/"),
    (NORMS, r"^aten::add_?$|CUDAFunctor_add|AddFunctor"),
    (REFORMAT, r"^aten::(_?to_copy|_to_copy|to|copy_|clone|contiguous|transpose|t|view|_unsafe_view|reshape|permute)$"),
    (REFORMAT, r"^aten::(as_strided|expand|slice|select|unsqueeze|squeeze|split|cat|chunk|empty\w*|quantize\w*)$"),
    (
        REFORMAT,
        r"direct_copy_kernel|CatArrayBatchedCopy|_[Qq]uantize|__myl_\w*_(Mov|Res|Tra|Rep|Con|Sli|Cas|Rou)+(_vec)?$",
    ),
)
"""Patterns of names, in order. The first that matches gives the class."""


@cache
def kernel_class(name: str, kind: str = "") -> str:
    """Return the class of a kernel by its name and the type of its operator, see `KernelTime`.

    A kernel that a product writes its activation in counts as product, and one that normalizes and quantizes as norm.
    Kernels of unfused attention count as attention where the name of their node or operator shows it. Otherwise they
    are products, as in a profile that has names of kernels only.
    """
    for group, pattern in KINDS:
        if re.search(pattern, kind):
            return group
    for text in (name, kind):
        for group, pattern in NAMES:
            if text and re.search(pattern, text):
                return group
    return OTHER


def times_by_class(kernels: Iterable[KernelTime]) -> Mapping[str, tuple[int, int]]:
    """Return the time in ns and the number of the kernels of each class in `CLASSES`."""
    times = dict.fromkeys(CLASSES, (0, 0))
    for kernel in kernels:
        group = kernel_class(kernel.name, kernel.kind)
        spent, count = times[group]
        times[group] = spent + kernel.nanoseconds, count + kernel.count
    return times
