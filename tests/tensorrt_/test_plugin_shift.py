"""The shift of GELU in an engine of plugins, on a fake of TensorRT that records calls."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from fake_api import fake_api

from backends.onnx_.gelu_shift import bias_correction, centred_range
from backends.tensorrt_.plugins.plugin_choices import Choices
from backends.tensorrt_.plugins.plugin_network import PluginNetwork


class Tensor:
    shape = (-1, 4, 1, 1)
    dynamic_range: tuple[float, float] | None = None

    def set_dynamic_range(self, low: float, high: float) -> None:
        self.dynamic_range = (low, high)


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
def test_the_bias_corrects_for_the_shift_of_gelu(excluded: tuple[str, ...]) -> None:
    api = fake_api({"weak_typing"})
    api.trt.Weights = lambda array: array
    choices = Choices(True, False, True, "convolution", "erf", True, False, 128, shift=True)
    generator, network = np.random.default_rng(0), Network()
    shapes = {"up_weight": (8, 4), "up_bias": (8,), "down_weight": (4, 8), "down_bias": (4,)}
    arrays = {f"0/{name}": generator.random(shape, np.float32) for name, shape in shapes.items()}
    ranges = {"0/up": 5.0, "0/gelu": 5.0, "0/down": 3.0}
    PluginNetwork(api, network, choices, arrays, {"layers": 1}, ranges, excluded)._feed_forward(Tensor(), 0)
    *_, (name, (_, _, _, _, bias), down) = network.calls
    assert (name, down.dynamic_range) == ("add_convolution_nd", None)
    _, (gelu, *_), _ = network.calls[-1]
    set_ranges = [tensor.dynamic_range for *_, tensor in network.calls if tensor.dynamic_range]
    offset, shifted = centred_range(5.0)
    assert set_ranges == [gelu.dynamic_range] == [(-5.0, 5.0) if excluded else (-shifted, shifted)]
    expected = arrays["0/down_bias"] + (0 if excluded else bias_correction(offset, arrays["0/down_weight"].T))
    np.testing.assert_allclose(bias, expected, rtol=1e-6)
