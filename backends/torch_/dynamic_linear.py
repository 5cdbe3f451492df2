"""Dynamic INT8 of linear modules by torchao, for torch.compile on a CPU.

Each weight is INT8 with one scale for each output channel. Each pass computes a scale for each token of an activation.
The compiler fuses that computation with its neighbours, and the product is an INT8 kernel of oneDNN (`aten::_int_mm`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from backends.base import BuildSpec, Device, Unavailable, Unsupported, versions_of
from backends.finding import OK, WARNING, Finding

if TYPE_CHECKING:
    from backends.model.output_head import ModelWithOutput

METHOD = "torchao, Int8DynamicActivationInt8WeightConfig"
"""Note of the record about the method."""


def check_int8(spec: BuildSpec) -> None:
    """
    Raises:
        Unsupported: the device or the scheme has no INT8 here.
        Unavailable: torchao is not installed.
    """
    if spec.device.kind != "cpu":
        raise Unsupported("INT8 of torch_compile is for CPUs; on a GPU use backend=trt")
    if not spec.quantization.dynamic:
        raise Unsupported("torch_compile has INT8 with quantization.scheme=dynamic only; set it, or use backend=ort")
    if not versions_of(("torchao",)):
        raise Unavailable("torchao is not installed in this interpreter: pip install torchao")


def int8_findings(device: Device) -> tuple[Finding, ...]:
    """Return the version of torchao on a CPU; nothing on a GPU, where INT8 does not use it."""
    if device.kind != "cpu":
        return ()
    versions = versions_of(("torchao",))
    if not versions:
        install = f"{sys.executable} -m pip install torchao"
        return (Finding("torchao", WARNING, "not installed; INT8 of torch_compile needs it", install),)
    return (Finding("torchao", OK, f"{versions['torchao']}, for INT8 of torch_compile"),)


def quantize_int8(model: ModelWithOutput, leave_out: Sequence[str]) -> None:
    """Replace the weights of the linear modules of the encoder by INT8 tensors.

    Args:
        leave_out: name patterns of products that stay in floating point, see left_out.py.
    """
    import torch

    from backends.torch_.left_out import left_out

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao warns of its GPU extensions, which a CPU does not need
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        excluded = left_out(model.encoder, leave_out)
        quantize_(
            model.encoder,
            Int8DynamicActivationInt8WeightConfig(),
            filter_fn=lambda module, name: isinstance(module, torch.nn.Linear) and name not in excluded,
        )
