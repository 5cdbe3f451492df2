"""Fields of plugins, with a mock of TensorRT whose collection points to the fields but does not own them."""

from __future__ import annotations

import gc
import importlib
import sys
import weakref
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.base import Unsupported


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


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Module backends.tensorrt_.plugins.plugin_creators with the mock of TensorRT. Its registry returns `plugins.creator`."""
    creator = Creator()
    registry = SimpleNamespace(get_plugin_creator=lambda name, version, namespace: creator)
    kinds = SimpleNamespace(FLOAT32="float32", INT32="int32")
    tensorrt = SimpleNamespace(
        __version__="8.6.0", PluginField=Field, PluginFieldCollection=Collection, PluginFieldType=kinds,
        get_plugin_registry=lambda: registry, INetworkDefinition=object, ITensor=object, ILayer=object,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    for name in ("plugins", "capabilities"):
        monkeypatch.delitem(sys.modules, f"backends.tensorrt_.{name}", raising=False)
    module = importlib.import_module("backends.tensorrt_.plugins.plugin_creators")
    monkeypatch.setattr(module, "can", SimpleNamespace(plugin_v3=False, plugin_v2=True))
    yield SimpleNamespace(
        add_plugin=module.add_plugin, creator=creator, can=module.can, registry=registry, tensorrt=tensorrt
    )
    del sys.modules["backends.tensorrt_.plugins.plugin_creators"]


def test_fields_live_until_the_plugin_has_read_them(plugins: Any) -> None:
    network = SimpleNamespace(add_plugin_v2=lambda inputs, plugin: SimpleNamespace(name=""))
    weights = np.arange(6, dtype=np.float64).reshape(2, 3).T  # not contiguous, so it is copied
    layer = plugins.add_plugin(network, "CustomFCPluginDynamic", 1, [], {"type_id": 1, "W": weights}, "product")
    assert layer.name == "product"
    assert plugins.creator.read == {"type_id": [1], "W": [0, 3, 1, 4, 2, 5]}


class Port(Creator):
    """Creator of plugin interface version 3, which has an argument for the phase."""

    def create_plugin(self, name: str, collection: Collection, phase: str = "") -> str:  # type: ignore[override]
        assert phase == "build"
        return f"port {super().create_plugin(name, collection)}"


NETWORK = SimpleNamespace(
    add_plugin_v2=lambda inputs, plugin: SimpleNamespace(plugin=plugin, name=""),
    add_plugin_v3=lambda inputs, shapes, plugin: SimpleNamespace(plugin=plugin, name=""),
)


def test_a_port_is_used_if_there_is_one_and_else_the_original(plugins: Any) -> None:
    ported = {("CustomQKVToContextPluginDynamic", "5"): Port(), ("CustomSkipLayerNormPluginDynamic", "8"): Port()}
    plugins.can.plugin_v3, plugins.tensorrt.TensorRTPhase = True, SimpleNamespace(BUILD="build")
    plugins.registry.get_creator = lambda name, version, namespace: ported.get((name, version))

    def add(name: str, version: int) -> str:
        layer = plugins.add_plugin(NETWORK, name, version, [], {"type_id": 1}, "layer")
        assert layer.name == "layer"
        return str(layer.plugin)

    # A port has another version number than the original plugin. A plugin without a port is used itself.
    assert add("CustomQKVToContextPluginDynamic", 2) == "port layer"
    assert add("CustomSkipLayerNormPluginDynamic", 4) == "port layer"
    assert add("CustomSkipLayerNormPluginDynamic", 1) == "layer"
    assert add("CustomFCPluginDynamic", 1) == "layer"
    plugins.can.plugin_v2 = False
    with pytest.raises(Unsupported, match="has no plugin CustomSkipLayerNormPluginDynamic version 1"):
        add("CustomSkipLayerNormPluginDynamic", 1)
