"""Fields of plugins, over a TensorRT that points into them without holding them, as its collection does."""

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
    """Stands in for PluginField, which holds its values."""

    def __init__(self, name: str, values: Any, kind: str) -> None:
        self.name, self.values = name, values


class Collection:
    """Stands in for PluginFieldCollection, which copies addresses and holds nothing."""

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
    """backends.tensorrt_.plugins over such a TensorRT, whose registry is `plugins.creator`."""
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
    module = importlib.import_module("backends.tensorrt_.plugins")
    monkeypatch.setattr(module, "can", SimpleNamespace(plugin_v3=False, plugin_v2=True))
    yield SimpleNamespace(
        add_plugin=module.add_plugin, creator=creator, can=module.can, registry=registry, tensorrt=tensorrt
    )
    del sys.modules["backends.tensorrt_.plugins"]


def test_the_plugin_reads_fields_that_are_still_there(plugins: Any) -> None:
    network = SimpleNamespace(add_plugin_v2=lambda inputs, plugin: SimpleNamespace(name=""))
    weights = np.arange(6, dtype=np.float64).reshape(2, 3).T  # what is copied to lie in a row
    layer = plugins.add_plugin(network, "CustomFCPluginDynamic", 1, [], {"type_id": 1, "W": weights}, "product")
    assert layer.name == "product"
    assert plugins.creator.read == {"type_id": [1], "W": [0, 3, 1, 4, 2, 5]}


class Port(Creator):
    """A creator of the third interface, which is told what its plugin is for."""

    def create_plugin(self, name: str, collection: Collection, phase: str = "") -> str:  # type: ignore[override]
        assert phase == "build"
        return f"port {super().create_plugin(name, collection)}"


NETWORK = SimpleNamespace(
    add_plugin_v2=lambda inputs, plugin: SimpleNamespace(plugin=plugin, name=""),
    add_plugin_v3=lambda inputs, shapes, plugin: SimpleNamespace(plugin=plugin, name=""),
)


def test_a_release_with_ports_takes_them_and_others_where_there_is_none(plugins: Any) -> None:
    ported = {("CustomQKVToContextPluginDynamic", "5"): Port(), ("CustomSkipLayerNormPluginDynamic", "8"): Port()}
    plugins.can.plugin_v3, plugins.tensorrt.TensorRTPhase = True, SimpleNamespace(BUILD="build")
    plugins.registry.get_creator = lambda name, version, namespace: ported.get((name, version))

    def added(name: str, version: int) -> str:
        layer = plugins.add_plugin(NETWORK, name, version, [], {"type_id": 1}, "layer")
        assert layer.name == "layer"
        return str(layer.plugin)

    # The port has another number than what it is a port of, and what has none is taken as it was.
    assert added("CustomQKVToContextPluginDynamic", 2) == "port layer"
    assert added("CustomSkipLayerNormPluginDynamic", 4) == "port layer"
    assert added("CustomSkipLayerNormPluginDynamic", 1) == "layer"
    assert added("CustomFCPluginDynamic", 1) == "layer"
    plugins.can.plugin_v2 = False
    with pytest.raises(Unsupported, match="has no plugin CustomSkipLayerNormPluginDynamic version 1"):
        added("CustomSkipLayerNormPluginDynamic", 1)
