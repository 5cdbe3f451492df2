"""ONNX Runtime with its execution providers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from backends.config_key import key
from backends.description import HIDDEN_STATES, MARKED_LAYERS, BackendDescription, ExportDescription, SourceKind
from backends.dynamic_range import RangeKeys, refuse_ranges, resolved_range
from backends.options import BackendOptions, Profiles, SharedKeys, Switch
from backends.value_checks import Refused, at_least, between

Provider = Enum("Provider", ["auto", "cpu", "cuda", "tensorrt", "nv_tensorrt_rtx", "openvino"])

ENGINE_PROVIDERS = (Provider.tensorrt, Provider.nv_tensorrt_rtx)
"""Providers that compile an engine for each optimization profile."""

Options = TypeVar("Options", bound="OrtOptions")


@dataclass
class OrtKeys(RangeKeys):
    """The group `ort` of the command line."""

    fusion: Switch = key(Switch.auto, "Fuse the graph with ONNX Runtime's BERT optimizer. auto: on for cuda only.")
    provider: Provider = key(
        Provider.auto,
        "Execution provider. auto: cuda on a GPU and cpu on a CPU. tensorrt and nv_tensorrt_rtx need a GPU; openvino "
        "runs on a CPU. Nodes that a provider does not support run on cuda or cpu, and the row says how many.",
        added_later=True,
        in_help=True,
    )
    optimization_level: int = key(3, "ort.provider=tensorrt: builder optimization level from 0 to 5.", added_later=True)
    workspace_mb: int = key(
        0, "tensorrt, nv_tensorrt_rtx: builder workspace in MB. 0: the provider's default.", added_later=True
    )

    def __post_init__(self) -> None:
        between("ort.optimization_level", self.optimization_level, 0, 5)
        at_least("ort.workspace_mb", self.workspace_mb, 0)


@dataclass
class OrtOptions(OrtKeys, BackendOptions):
    """Options of backend ort. Only providers with engines have profiles; others have none of their options."""

    min: list[int] = key([], added_later=True)
    opt: list[int] = key([], added_later=True)
    max: list[int] = key([], added_later=True)
    profiles: Profiles = key(Profiles.per_shape, added_later=True)

    @classmethod
    def resolved(cls: type[Options], shared: SharedKeys, groups: Mapping[str, object]) -> Options:
        options = super().resolved(shared, groups)
        if options.provider in ENGINE_PROVIDERS:
            refuse_ranges(options.profiles, f"ort.provider={options.provider.name}")
            sizes = resolved_range(options, shared, "ort")
            return replace(options, min=sizes.min, opt=sizes.opt, max=sizes.max)
        given = [name for name in ("min", "opt", "max") if getattr(options, name)]
        given += ["workspace_mb"] if options.workspace_mb else []
        if given:
            raise Refused(f"ort.{given[0]} is for ort.provider=tensorrt and nv_tensorrt_rtx; leave it out")
        if options.optimization_level != OrtKeys.optimization_level:
            raise Refused("ort.optimization_level is for ort.provider=tensorrt; leave it out")
        return replace(options, profiles=Profiles.per_shape)

    @property
    def ranges(self) -> list[list[int]]:
        """No profiles of profiles=ranges; see `plan_profiles`."""
        return []


BACKENDS = (
    BackendDescription(
        name="ort",
        factory="backends.ort_.ort:OnnxRuntime",
        source=SourceKind.onnx,
        devices=("cpu", "cuda"),
        time_limit_s=1200.0,
        options=OrtOptions,
        groups={"ort": OrtKeys},
        keeps_parts_by=("quantization.leave_out",),
        outputs=(HIDDEN_STATES, MARKED_LAYERS),
        export=ExportDescription(
            "backends.ort_.deploy_onnx:deploy_onnx",
            "backends.ort_.run_onnx",
            triton=("onnxruntime", "onnxruntime_onnx"),
        ),
    ),
)
