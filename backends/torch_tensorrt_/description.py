"""Torch-TensorRT: PyTorch models that TensorRT compiles, with operators that it does not convert in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from backends.config_key import key
from backends.description import BackendDescription, SourceKind
from backends.dynamic_range import RangeKeys, refuse_ranges, resolved_range
from backends.options import BackendOptions, Profiles, SharedKeys
from backends.value_checks import at_least, between

Options = TypeVar("Options", bound="TorchTensorRTOptions")


@dataclass
class TorchTensorRTKeys(RangeKeys):
    """The group `torch_tensorrt` of the command line."""

    optimization_level: int = key(3, "Builder optimization level from 0 to 5.")
    workspace_mb: int = key(0, "Builder workspace in MB. 0: TensorRT's default.")
    aux_streams: int = key(-1, "Auxiliary streams of an engine. -1: TensorRT decides.")
    min_block_size: int = key(5, "Fewest operators in a row that become an engine; fewer of them run in PyTorch.")
    hardware_compatible: bool = key(False, "Build engines that run on other GPU architectures too.")

    def __post_init__(self) -> None:
        between("torch_tensorrt.optimization_level", self.optimization_level, 0, 5)
        at_least("torch_tensorrt.workspace_mb", self.workspace_mb, 0)
        at_least("torch_tensorrt.aux_streams", self.aux_streams, -1)
        at_least("torch_tensorrt.min_block_size", self.min_block_size, 1)


@dataclass
class TorchTensorRTOptions(TorchTensorRTKeys, BackendOptions):
    """Options of backend torch_tensorrt. `min`, `opt` and `max` are resolved, as [batch, sequence]."""

    profiles: Profiles = Profiles.per_shape

    @classmethod
    def resolved(cls: type[Options], shared: SharedKeys, groups: Mapping[str, object]) -> Options:
        options = super().resolved(shared, groups)
        refuse_ranges(options.profiles, "torch_tensorrt")
        sizes = resolved_range(options, shared, "torch_tensorrt")
        return replace(options, min=sizes.min, opt=sizes.opt, max=sizes.max)

    @property
    def ranges(self) -> list[list[int]]:
        """No profiles of profiles=ranges; see `plan_profiles`."""
        return []


BACKENDS = (
    BackendDescription(
        name="torch_tensorrt",
        factory="backends.torch_tensorrt_.torch_tensorrt_backend:TorchTensorRT",
        source=SourceKind.checkpoint,
        devices=("cuda",),
        time_limit_s=3600.0,
        options=TorchTensorRTOptions,
        groups={"torch_tensorrt": TorchTensorRTKeys},
        builds_engine=True,
    ),
)
