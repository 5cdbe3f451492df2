"""The shift of GELU in an engine of plugins, on a stand-in for TensorRT that records calls."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from backends.onnx_.gelu_shift import bias_correction, centred_range
from backends.tensorrt_.plugins.plugin_choices import Choices


class Tensor:
    shape = (-1, 4, 1, 1)
    reach: tuple[float, float] | None = None

    def set_dynamic_range(self, low: float, high: float) -> None:
        self.reach = (low, high)


class Network:
    """A network that records its calls in `calls`. Every call returns a layer with a new tensor."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], Tensor]] = []

    def __getattr__(self, name: str) -> Any:
        def add(*arguments: Any) -> Any:
            tensor = Tensor()
            self.calls.append((name, arguments, tensor))
            return MagicMock(get_output=lambda _: tensor)

        return add


@pytest.mark.parametrize("excluded", [(), ("0/down",)])
def test_the_bias_corrects_for_the_shift_of_gelu(excluded: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    tensorrt = MagicMock()
    tensorrt.Weights = lambda array: array
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    before = set(sys.modules)
    module = importlib.import_module("backends.tensorrt_.plugins.plugin_network")
    try:
        monkeypatch.setattr(module, "can", SimpleNamespace(weak_typing=True, fully_connected=False))
        choices = Choices(True, False, True, "convolution", "erf", True, False, 128, shift=True)
        generator, network = np.random.default_rng(0), Network()
        shapes = {"up_weight": (8, 4), "up_bias": (8,), "down_weight": (4, 8), "down_bias": (4,)}
        arrays = {f"0/{name}": generator.random(shape, np.float32) for name, shape in shapes.items()}
        ranges = {"0/up": 5.0, "0/gelu": 5.0, "0/down": 3.0}
        plugin_network = module.PluginNetwork(network, choices, arrays, {"layers": 1}, ranges, excluded)
        plugin_network._feed_forward(Tensor(), 0)
    finally:
        for name in set(sys.modules) - before:
            if name.startswith("backends.tensorrt_"):
                del sys.modules[name]
    *_, (name, (_, _, _, _, bias), down) = network.calls
    assert (name, down.reach) == ("add_convolution_nd", None)
    (_, (gelu, *_), _), set_ranges = network.calls[-1], [tensor.reach for *_, tensor in network.calls if tensor.reach]
    offset, shifted = centred_range(5.0)
    assert set_ranges == [gelu.reach] == [(-5.0, 5.0) if excluded else (-shifted, shifted)]
    expected = arrays["0/down_bias"] + (0 if excluded else bias_correction(offset, arrays["0/down_weight"].T))
    np.testing.assert_allclose(bias, expected, rtol=1e-6)
