"""Fields of plugins, with a mock of TensorRT whose collection points to the fields but does not own them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_api import fake_api

from backends.base import Unsupported
from backends.tensorrt_.plugins.basic_layers import BasicLayers
from backends.tensorrt_.plugins.plugin_creators import Plugin, add_plugin


class Field:
    """Mock of PluginField, which owns its values."""

    def __init__(self, name: str, values: Any, kind: str) -> None:
        self.name, self.values = name, values


class Collection:
    """Mock of PluginFieldCollection, which copies the addresses of fields but does not own the fields."""

    def __init__(self, fields: Iterable[Field]) -> None:
        self.fields = [weakref.ref(field) for field in fields]


class Creator:
    read: dict[str, Any]

    def create_plugin(self, name: str, collection: Collection) -> str:
        gc.collect()
        fields = [field() for field in collection.fields]
        self.read = {field.name: field.values.tolist() for field in fields if field}
        return name


@dataclass
class Registry:
    """Fake registry with one creator of version 2 of the plugin interface, for every name, and `ports` of version 3."""

    creator: Creator = field(default_factory=Creator)
    ports: dict[tuple[str, str], Port] = field(default_factory=dict)

    def get_plugin_creator(self, name: str, version: str, namespace: str) -> Creator:
        return self.creator

    def get_creator(self, name: str, version: str, namespace: str) -> Port | None:
        return self.ports.get((name, version))


def layers_with(registry: Registry, *names: str) -> BasicLayers:
    """Return layers of a release with that registry and the capabilities `names`."""
    module = SimpleNamespace(
        __version__="8.6.0", PluginField=Field, PluginFieldCollection=Collection,
        PluginFieldType=SimpleNamespace(FLOAT32="float32", INT32="int32"), TensorRTPhase=SimpleNamespace(BUILD="build"),
        get_plugin_registry=lambda: registry,
    )  # fmt: skip
    return BasicLayers(fake_api({*names}, module=module), NETWORK, half=True)


def test_fields_live_until_the_plugin_has_read_them() -> None:
    weights = np.arange(6, dtype=np.float64).reshape(2, 3).T  # not contiguous, so it is copied
    registry = Registry()
    plugin = Plugin("CustomFCPluginDynamic", 1, {"type_id": 1, "W": weights})
    layer = add_plugin(layers_with(registry, "plugin_v2"), plugin, [], "product")
    assert layer.name == "product"
    assert registry.creator.read == {"type_id": [1], "W": [0, 3, 1, 4, 2, 5]}


class Port(Creator):
    """Creator of plugin interface version 3, which has an argument for the phase."""

    def create_plugin(self, name: str, collection: Collection, phase: str = "") -> str:  # type: ignore[override]
        assert phase == "build"
        return f"port {super().create_plugin(name, collection)}"


NETWORK = SimpleNamespace(
    add_plugin_v2=lambda inputs, plugin: SimpleNamespace(plugin=plugin, name=""),
    add_plugin_v3=lambda inputs, shapes, plugin: SimpleNamespace(plugin=plugin, name=""),
)


def test_a_port_is_used_if_there_is_one_and_else_the_original() -> None:
    registry = Registry(
        ports={("CustomQKVToContextPluginDynamic", "5"): Port(), ("CustomSkipLayerNormPluginDynamic", "8"): Port()}
    )

    def add(name: str, version: int, *interfaces: str) -> str:
        layer = add_plugin(layers_with(registry, *interfaces), Plugin(name, version, {"type_id": 1}), [], "layer")
        assert layer.name == "layer"
        return str(layer.plugin)

    both = ("plugin_v2", "plugin_v3")
    # A port has another version number than the original plugin. A plugin without a port is used itself.
    assert add("CustomQKVToContextPluginDynamic", 2, *both) == "port layer"
    assert add("CustomSkipLayerNormPluginDynamic", 4, *both) == "port layer"
    assert add("CustomSkipLayerNormPluginDynamic", 1, *both) == "layer"
    assert add("CustomFCPluginDynamic", 1, *both) == "layer"
    with pytest.raises(Unsupported, match="has no plugin CustomSkipLayerNormPluginDynamic version 1"):
        add("CustomSkipLayerNormPluginDynamic", 1, "plugin_v3")
