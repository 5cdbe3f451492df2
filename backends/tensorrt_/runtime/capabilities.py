"""Capabilities of a TensorRT release, detected by the names in its Python module. Enum integers and version numbers are
not reliable for this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields


def _if_named(name: str) -> bool:
    specified: bool = field(metadata={"name": name})
    return specified


@dataclass(frozen=True)
class Capabilities:
    """Features of a TensorRT release. A flag is true if its module has the name in the field's metadata."""

    explicit_batch: bool = _if_named("NetworkDefinitionCreationFlag.EXPLICIT_BATCH")
    """Networks need a flag to have the batch as a dimension. Releases in which they always have it lack the flag."""

    weak_typing: bool = _if_named("BuilderFlag.FP16")
    """Builder flags and layers set precisions. Without weak typing, types come from the graph only."""

    strong_typing: bool = _if_named("NetworkDefinitionCreationFlag.STRONGLY_TYPED")
    """Types can come from the graph."""

    bfloat16: bool = _if_named("DataType.BF16")
    opset_19: bool = _if_named("DataType.INT64")
    """ONNX opsets above 17, and therefore FP8 Q/DQ, which needs opset 19. TensorRT 8.6 has names for FP8 types, but its
    parser reads only up to opset 17. Parsers of releases with native INT64 read higher opsets."""

    int64_sizes: bool = _if_named("DataType.INT64")
    """Sizes of tensors are INT64 in a network. Earlier releases have INT32 only."""

    calibration: bool = _if_named("IInt8EntropyCalibrator2")
    """Implicit INT8: the builder finds the ranges."""

    plugin_v2: bool = _if_named("IPluginRegistry.get_plugin_creator")
    plugin_v3: bool = _if_named("INetworkDefinition.add_plugin_v3")
    """Versions of the plugin interface. TensorRT 11 has only version 3."""

    packed_attention: bool = _if_named("AttentionIOForm.PACKED_NHD")
    """Attention over packed tokens without a plugin."""

    fully_connected: bool = _if_named("INetworkDefinition.add_fully_connected")
    """A layer type for matrix products only, deprecated in 8.4 and removed in 10."""

    tactic_heuristic: bool = _if_named("BuilderFlag.ENABLE_TACTIC_HEURISTIC")
    """A flag to predict tactics. Later releases predict them at low optimization levels."""

    profile_sharing: bool = _if_named("PreviewFeature.PROFILE_SHARING_0806")
    """Whether contexts of one engine may use the same profile is a setting. In releases without it they always may."""

    progress: bool = _if_named("IProgressMonitor")
    named_parser_errors: bool = _if_named("ParserError.node_name")
    named_targets: bool = _if_named("IBuilderConfig.set_compute_capability")
    """TensorRT-RTX: builds for a named compute capability, on a machine without that GPU or any other."""

    runtime_strategies: bool = _if_named("IRuntimeConfig.set_runtime_cache")
    """TensorRT-RTX compiles kernels for shapes at run time: when it does so, a cache for them, its own CUDA graphs."""

    engine_validity: bool = _if_named("Runtime.get_engine_validity")
    """A runtime can say why it does not run a plan, without reading the whole plan."""

    memory_size_v1: bool = _if_named("ICudaEngine.device_memory_size")

    @property
    def timings(self) -> bool:
        """Whether builds time tactics and can keep the times. Builds of TensorRT-RTX time nothing."""
        return not self.named_targets

    @classmethod
    def where(cls, named: Callable[[str], bool]) -> Capabilities:
        """Return the capabilities of a release. `named("A.B")` returns whether the release has tensorrt.A.B."""
        return cls(**{item.name: named(item.metadata["name"]) for item in fields(cls)})
