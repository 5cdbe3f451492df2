"""Names of kernels without numbers of layers, so that equal kernels of all layers are one row."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from backends.kernel_times import KernelTime, joined_kernels

LAYER = re.compile(r"^\d+(?=/)|(?<=\blayer\.)\d+|(?<=\blayers\.)\d+|\(Unnamed Layer\* \d+\) ")
"""Numbers of layers in names of plugin networks ("3/up") and of ONNX nodes ("/encoder/layer.3/..."), and the numbers
that TensorRT gives to layers without a name."""

LONGEST = 60
"""Most characters of a name in a table. TensorRT lists all operations of a fused layer in its name."""


def kernels_of_all_layers(kernels: Iterable[KernelTime]) -> list[KernelTime]:
    """Return one entry for equal kernels of all layers, with a star for the layer; the most time first."""
    renamed = (replace(kernel, name=_with_star(kernel.name)) for kernel in kernels)
    return sorted(joined_kernels(renamed), key=lambda kernel: -kernel.nanoseconds)


def _with_star(name: str) -> str:
    return LAYER.sub(lambda found: "" if found[0].startswith("(") else "*", name)


def shortened(name: str) -> str:
    """Return a name of at most `LONGEST` characters; a longer one ends with three dots."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."
