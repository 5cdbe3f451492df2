"""What a TensorRT release can do, told by the names it has. Enum integers and version numbers tell nothing reliable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache, reduce
from typing import Any


def _if_named(name: str) -> Any:
    return field(metadata={"name": name})


@dataclass(frozen=True)
class Capabilities:
    """One flag a capability, and the name in the module `tensorrt` whose presence decides it."""

    explicit_batch: bool = _if_named("NetworkDefinitionCreationFlag.EXPLICIT_BATCH")
    """Networks have to be told that the batch is a dimension; the flag is gone where they always are."""

    weak_typing: bool = _if_named("BuilderFlag.FP16")
    """Precisions by builder flags and by layer; without it types come from the graph alone."""

    strong_typing: bool = _if_named("NetworkDefinitionCreationFlag.STRONGLY_TYPED")
    """Types may come from the graph."""

    bfloat16: bool = _if_named("DataType.BF16")
    opset_19: bool = _if_named("DataType.INT64")
    """ONNX above opset 17, and with it FP8 Q/DQ: 8.6 names FP8 types, but its parser stops two opsets before them. The
    parsers that came with native INT64 go on."""

    calibration: bool = _if_named("IInt8EntropyCalibrator2")
    """Implicit INT8: ranges found by the builder."""

    plugin_v2: bool = _if_named("IPluginRegistry.get_plugin_creator")
    plugin_v3: bool = _if_named("INetworkDefinition.add_plugin_v3")
    """Interfaces of plugins; 11 kept the third alone."""

    packed_attention: bool = _if_named("AttentionIOForm.PACKED_NHD")
    """Attention over packed tokens without a plugin."""

    fully_connected: bool = _if_named("INetworkDefinition.add_fully_connected")
    """A layer for products alone, deprecated in 8.4 and gone in 10."""

    progress: bool = _if_named("IProgressMonitor")
    named_parser_errors: bool = _if_named("ParserError.node_name")
    memory_size_v1: bool = _if_named("ICudaEngine.device_memory_size")

    @classmethod
    def where(cls, named: Callable[[str], bool]) -> Capabilities:
        """The capabilities of a release in which `named("A.B")` says whether tensorrt.A.B is there."""
        return cls(**{item.name: named(item.metadata["name"]) for item in fields(cls)})


@cache
def installed() -> Capabilities:
    """The capabilities of the TensorRT that this interpreter imports."""
    import tensorrt

    def named(name: str) -> bool:
        try:
            reduce(getattr, name.split("."), tensorrt)
        except AttributeError:
            return False
        return True

    return Capabilities.where(named)
