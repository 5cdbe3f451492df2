"""TensorRT's BERT plugins by name, in the versions and through the calls that a release has.

Fields as the registry of 8.6.0 lists them. The ports to the third plugin interface, which 10.x added and 11.x kept
alone, take the same fields under other version numbers (plugin/*/README.md of NVIDIA/TensorRT).

No plugin takes a norm's epsilon. Norms of 8.6 add none to the variance, which is of FP16 unless tensors are FP32; the
ports of 10.x add one of their own, so that their outputs differ where a variance is tiny.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorrt as trt

from backends.base import Unsupported
from backends.tensorrt_.capabilities import installed

can = installed()

EMBEDDINGS = "CustomEmbLayerNormPluginDynamic"
ATTENTION = "CustomQKVToContextPluginDynamic"
SKIP_NORM = "CustomSkipLayerNormPluginDynamic"
LINEAR = "CustomFCPluginDynamic"
PORTS = {
    EMBEDDINGS: {1: 6, 2: 4, 3: 5},
    ATTENTION: {1: 4, 2: 5, 3: 6},
    SKIP_NORM: {1: 5, 2: 6, 3: 7, 4: 8},
}
"""Version of the port to the third interface, by the version of the second."""

FP32, FP16, INT8 = 0, 1, 2
"""What the plugins' field `type_id` means by a number, in every release."""


def add_plugin(
    network: trt.INetworkDefinition,
    name: str,
    version: int,
    inputs: Sequence[trt.ITensor],
    fields: Mapping[str, Any],
    layer_name: str,
) -> trt.ILayer:
    """A layer of plugin `name`; `version` is that of the second plugin interface.

    Args:
        fields: int, float or an FP32 array by field name.

    Raises:
        Unsupported: the registry has no such plugin.
    """
    # The collection points into the fields without holding them: they must live until the plugin has read them.
    held = [_field(key, value) for key, value in fields.items()]
    collection = trt.PluginFieldCollection(held)
    registry = trt.get_plugin_registry()
    if can.plugin_v3 and version in PORTS.get(name, {}):
        creator = registry.get_creator(name, str(PORTS[name][version]), "")
        if creator is not None:
            plugin = creator.create_plugin(layer_name, collection, trt.TensorRTPhase.BUILD)
            layer = network.add_plugin_v3(list(inputs), [], plugin)
            layer.name = layer_name
            return layer
    if can.plugin_v2:
        creator = registry.get_plugin_creator(name, str(version), "")
        if creator is not None:
            layer = network.add_plugin_v2(list(inputs), creator.create_plugin(layer_name, collection))
            layer.name = layer_name
            return layer
    raise Unsupported(f"TensorRT {trt.__version__} has no plugin {name} version {version}; use backend=trt")


def _field(name: str, value: Any) -> trt.PluginField:
    if isinstance(value, np.ndarray):
        return trt.PluginField(name, np.ascontiguousarray(value, np.float32).ravel(), trt.PluginFieldType.FLOAT32)
    if isinstance(value, float):
        return trt.PluginField(name, np.array([value], np.float32), trt.PluginFieldType.FLOAT32)
    return trt.PluginField(name, np.array([value], np.int32), trt.PluginFieldType.INT32)
