"""Mock of TensorRT's network that records its layers, including plugins."""

from __future__ import annotations

from typing import Any

from backends.tensorrt_.plugins.basic_layers import BasicLayers
from backends.tensorrt_.plugins.plugin_creators import Plugin


class Tensor:
    """Output of a layer, with the layer that made it and its range."""

    shape = (-1, 1, 1, 1)

    def __init__(self, maker: Layer | None = None) -> None:
        self.maker, self.range = maker, 0.0

    def set_dynamic_range(self, low: float, high: float) -> None:
        assert low == -high
        self.range = high


class Layer:
    def __init__(self, verb: str, arguments: tuple[Any, ...]) -> None:
        self.verb, self.arguments, self.name, self.precision = verb, arguments, "", None
        self.outputs = [Tensor(self), Tensor(self)]
        self.types: dict[int, Any] = {}

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]

    def set_input(self, index: int, tensor: Tensor) -> None:
        self.arguments = (*self.arguments, tensor)

    def set_output_type(self, index: int, kind: Any) -> None:
        self.types[index] = kind


class Recorder:
    """Mock of a network, which records the added layers, including plugins."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.inputs: dict[str, tuple[Tensor, tuple[int, ...]]] = {}
        self.output: Any = None

    def __getattr__(self, verb: str) -> Any:
        if not verb.startswith("add_"):
            raise AttributeError(verb)

        def add(*arguments: Any) -> Layer:
            self.layers.append(Layer(verb, arguments))
            return self.layers[-1]

        return add

    def add_input(self, name: str, kind: Any, sizes: tuple[int, ...]) -> Tensor:
        self.inputs[name] = Tensor(), sizes
        return self.inputs[name][0]

    def mark_output(self, tensor: Tensor) -> None:
        assert self.output is None
        self.output = tensor

    def add_plugin(self, name: str, version: int, inputs: Any, fields: dict[str, Any], layer: str) -> Layer:
        plugin_layer = Layer(name.removeprefix("Custom").removesuffix("PluginDynamic"), (version, list(inputs), fields))
        plugin_layer.name = layer
        self.layers.append(plugin_layer)
        return plugin_layer

    def of(self, verb: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.verb == verb]

    def named(self, name: str) -> Layer:
        (layer,) = [layer for layer in self.layers if layer.name == name]
        return layer

    def fields(self, name: str) -> dict[str, Any]:
        fields: dict[str, Any] = self.named(name).arguments[2]
        return fields

    @property
    def ranges(self) -> list[float]:
        return sorted(tensor.range for layer in self.layers for tensor in layer.outputs if tensor.range)


def record_plugin(layers: BasicLayers, plugin: Plugin, inputs: Any, layer_name: str) -> Layer:
    network: Any = layers.network
    layer: Layer = network.add_plugin(plugin.name, plugin.version, inputs, plugin.fields, layer_name)
    return layer
