"""TensorRT's BERT plugins by name, in the versions and with the API calls that a release has.

The names of fields are those in the registry of 8.6.0. 10.x added version 3 of the plugin interface, and 11.x has only
that version. The ports of the plugins to version 3 have the same fields and other version numbers (plugin/*/README.md
of NVIDIA/TensorRT).

No plugin has a field for the epsilon of a norm. Norms of 8.6 add no epsilon to the variance, which is FP16 unless the
tensors are FP32. The ports of 10.x add a constant epsilon, so their outputs differ if a variance is tiny.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array, Unsupported
from backends.tensorrt_.plugins.basic_layers import BasicLayers
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi

if TYPE_CHECKING:
    import tensorrt as trt

EMBEDDINGS = "CustomEmbLayerNormPluginDynamic"
ATTENTION = "CustomQKVToContextPluginDynamic"
SKIP_NORM = "CustomSkipLayerNormPluginDynamic"
LINEAR = "CustomFCPluginDynamic"
GELU = "CustomGeluPluginDynamic"
PORTS = {
    EMBEDDINGS: {1: 6, 2: 4, 3: 5},
    ATTENTION: {1: 4, 2: 5, 3: 6},
    SKIP_NORM: {1: 5, 2: 6, 3: 7, 4: 8},
}
"""Version of a plugin's port to interface version 3, by the plugin's version for interface version 2."""

FieldValue = int | float | Array

FP32, FP16, INT8 = 0, 1, 2
"""Values of the plugins' field `type_id`, in every release."""


@dataclass(frozen=True)
class Plugin:
    """Plugin with its fields.

    Attributes:
        version: version of the plugin for version 2 of the plugin interface.
        fields: values by field name; an array is FP32.
    """

    name: str
    version: int
    fields: Mapping[str, FieldValue]


def add_plugin(layers: BasicLayers, plugin: Plugin, inputs: Sequence[trt.ITensor], layer_name: str) -> trt.ILayer:
    """Add a layer of the plugin and return it.

    Raises:
        Unsupported: the registry has no such plugin.
    """
    api, network, name, version = layers.api, layers.network, plugin.name, plugin.version
    trt, can = api.trt, api.can
    # The collection points to the fields but does not own them. This list keeps them until the plugin has read them.
    plugin_fields = [_field(api, key, value) for key, value in plugin.fields.items()]
    collection = trt.PluginFieldCollection(plugin_fields)
    registry = trt.get_plugin_registry()
    if can.plugin_v3 and version in PORTS.get(name, {}):
        creator = registry.get_creator(name, str(PORTS[name][version]), "")
        if creator is not None:
            created = creator.create_plugin(layer_name, collection, trt.TensorRTPhase.BUILD)
            layer = network.add_plugin_v3(list(inputs), [], created)
            layer.name = layer_name
            return layer
    if can.plugin_v2:
        creator = registry.get_plugin_creator(name, str(version), "")
        if creator is not None:
            layer = network.add_plugin_v2(list(inputs), creator.create_plugin(layer_name, collection))
            layer.name = layer_name
            return layer
    raise Unsupported(f"TensorRT {api.version} has no plugin {name} version {version}; use backend=trt")


def _field(api: TensorRTApi, name: str, value: FieldValue) -> trt.PluginField:
    trt = api.trt
    if isinstance(value, np.ndarray):
        return trt.PluginField(name, np.ascontiguousarray(value, np.float32).ravel(), trt.PluginFieldType.FLOAT32)
    if isinstance(value, float):
        return trt.PluginField(name, np.array([value], np.float32), trt.PluginFieldType.FLOAT32)
    return trt.PluginField(name, np.array([value], np.int32), trt.PluginFieldType.INT32)
