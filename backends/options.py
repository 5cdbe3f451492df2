"""Options of a cell: the keys that several backends share, and the base class of a backend's own options.

Needs CPython 3.10 and the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import TypeVar

from backends.config_key import cell_mapping, key

Switch = Enum("Switch", ["auto", "on", "off"])
Layout = Enum("Layout", ["packed", "fixed"])
Profiles = Enum("Profiles", ["dynamic", "per_shape", "buckets", "ranges"])

Options = TypeVar("Options", bound="BackendOptions")


@dataclass
class SharedKeys:
    """Keys of the command line without a group that backends read."""

    batch: list[int] = key([1, 8], "Batch sizes. A cell measures every batch with every sequence length.")
    sequence: list[int] = key([32, 128], "Sequence lengths in tokens, special tokens included.")
    profiles: Profiles = key(
        Profiles.per_shape,
        "TensorRT: per_shape has one profile for each shape; dynamic has one for a range (trt.min, trt.opt, trt.max); "
        "buckets has ranges that end at each shape; ranges takes trt.ranges.",
    )
    keep_fp32: list[str] = key(
        [], "Name patterns of ONNX nodes that stay in FP32, such as *LayerNorm*. For trt and torch_eager."
    )
    layout: Layout = key(
        Layout.packed,
        "trt_plugin and faster_transformer: packed computes tokens without padding; fixed pads every sequence.",
    )
    pad_to_multiple_of: int = key(
        1, "Round the number of packed tokens up to a multiple of this, so that shapes and their CUDA graphs recur."
    )


@dataclass(frozen=True)
class NamedGpu:
    """GPU that a build is for, which the machine need not have."""

    name: str
    compute_capability: tuple[int, int]


@dataclass
class BackendOptions:
    """Options of one backend for one cell. A subclass has a field for each option, with its default."""

    @classmethod
    def resolved(cls: type[Options], shared: SharedKeys, groups: Mapping[str, object]) -> Options:
        """Return the options of a request.

        A field has the value of the option of this name in one of the backend's groups, or of the shared key.

        Args:
            groups: the backend's groups of options on the command line, by name: instances of the dataclasses in
                BackendDescription.groups.

        Raises:
            Refused: a value contradicts another one.
        """
        values = {**vars(shared), **{name: value for group in groups.values() for name, value in vars(group).items()}}
        return cls(**{item.name: values[item.name] for item in fields(cls)})

    def for_cell(self) -> dict[str, object]:
        """Return the options as they are in a cell, in JSON types.

        An option that was added later is missing at its default, so that the ids of older cells stay the same.
        """
        return cell_mapping(self)

    def named_gpu(self) -> NamedGpu | None:
        """Return the GPU that the options name for the build; None to build for the GPU of the cell."""
        return None

    def has_graphs(self, device_kind: str) -> bool:
        """Return whether a session on this kind of device ("cpu" or "cuda") can capture a CUDA graph."""
        return device_kind == "cuda"
