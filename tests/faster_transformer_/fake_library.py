"""The operators of libth_transformer.so in numpy: they read weights and scales at the offsets that the library uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from backends.base import Array

NUMBERS = {"query": 0, "key": 2, "value": 4, "output": 6, "up": 10, "down": 12}
"""Position of the kernel of each product in the arguments of an operator. Its bias follows."""
NORMS = {"attention": 8, "norm": 14}
WEIGHT_RANGES = 72
"""Offset of the ranges of weights in a list of scales, after the ranges of activations."""
PLACE_OF = {"query": (0, 4), "key": (0, 12), "value": (0, 20), "output": (36, 40), "up": (44, 48), "down": (52, 56)}
"""Offsets in a list of scales of the input of each product, and of its output in mode 2."""
MASKED = np.float32(-10000)


def perturbed_checkpoint(folder: Path, architecture: Mapping[str, Any]) -> Path:
    """Save a model with random weights, also for biases and norms, so that none of them is without effect."""
    settings = dict(architecture)
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def norm(x: Array, gamma: Array, beta: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    result: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(1e-6)) * gamma + beta
    return result


def tanh_gelu(x: Array) -> Array:
    result: Array = torch.nn.functional.gelu(torch.from_numpy(x), approximate="tanh").numpy()
    return result


def softmax(scores: Array) -> Array:
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    result: Array = exponentials / exponentials.sum(-1, keepdims=True)
    return result


@dataclass(frozen=True)
class Encoder:
    """Encoder of an operator.

    Attributes:
        memory: memory of each tensor argument, flat.
        sizes: heads, head size and inner size.
        scales: list of scales of each layer; empty without INT8.
        mode: mode of INT8; 0 without INT8.
    """

    memory: list[Array]
    sizes: tuple[int, int, int]
    layers: int
    removes_padding: bool
    dtype: torch.dtype
    scales: Array
    mode: int = 0

    @property
    def hidden(self) -> int:
        return self.sizes[0] * self.sizes[1]

    def forward(self, states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        assert states.is_contiguous()
        assert lengths.dtype == torch.int32
        assert states.dtype == self.dtype
        x, valid = states.float().numpy(), np.arange(states.shape[1]) < lengths.numpy()[:, None]
        for layer in range(self.layers):
            x = self._layer(layer, x, valid)
        if self.removes_padding:
            x[~valid] = math.nan  # the library does not write there
        return torch.from_numpy(x).to(states.dtype)

    def _vector(self, number: int, layer: int, size: int) -> Array:
        return self.memory[number][layer * size : (layer + 1) * size]

    def _layer(self, layer: int, x: Array, valid: Array) -> Array:
        heads, size, _ = self.sizes
        split = (*x.shape[:2], heads, size)
        x = self._rounded(layer, 0, x) if self.mode == 2 else x
        parts = [self._product(layer, name, x).reshape(split).swapaxes(1, 2) for name in ("query", "key", "value")]
        query, key, value = (self._rounded(layer, 8 * n + 8, part) for n, part in enumerate(parts))
        scores = self._rounded(layer, 28, query @ key.swapaxes(-1, -2), self.mode == 2)
        probs = softmax(scores / np.float32(math.sqrt(size)) + np.where(valid, 0, MASKED)[:, None, None])
        context = (self._rounded(layer, 32, probs) @ value).swapaxes(1, 2).reshape(x.shape)
        x = norm(x + self._product(layer, "output", context), *self._norm(layer, "attention"))
        x = self._rounded(layer, 44, x) if self.mode == 2 else x
        inner = tanh_gelu(self._product(layer, "up", x))
        return norm(x + self._product(layer, "down", inner), *self._norm(layer, "norm"))

    def _norm(self, layer: int, name: str) -> tuple[Array, Array]:
        number = NORMS[name]
        return self._vector(number, layer, self.hidden), self._vector(number + 1, layer, self.hidden)

    def _product(self, layer: int, name: str, x: Array) -> Array:
        """Return a product with its bias."""
        inner, number = self.sizes[2], NUMBERS[name]
        inputs = inner if name == "down" else self.hidden
        outputs = inner if name == "up" else self.hidden
        bias = self._vector(number + 1, layer, outputs)
        kernel = self._vector(number, layer, inputs * outputs)
        if not self.mode:
            return np.asarray(x @ kernel.reshape(inputs, outputs) + bias)
        into, out_of = PLACE_OF[name]
        first = WEIGHT_RANGES + self.hidden * [*NUMBERS].index(name) + (3 * self.hidden if name == "down" else 0)
        ranges = self.scales[layer][first : first + outputs]
        if self.mode == 2:
            assert len(set(ranges)) == 1
            factor = self.scales[layer][WEIGHT_RANGES + 9 * self.hidden + (*range(3), 5, 6, 7)[[*NUMBERS].index(name)]]
            a, product = self.scales[layer][into], self.scales[layer][out_of]
            assert factor == pytest.approx(a * ranges[0] / (127 * product), rel=1e-6)
        rounded = kernel.astype(np.float16).view(np.int8)[: inputs * outputs].reshape(inputs, outputs)
        product = self._rounded(layer, into, x) @ (rounded * (ranges / 127))
        return np.asarray(self._rounded(layer, out_of, product, self.mode == 2) + bias)

    def _rounded(self, layer: int, place: int, x: Array, rounds: bool = True) -> Array:
        """Return values as INT8 with the scales at an offset represents them."""
        if not self.mode or not rounds:
            return x
        scales = self.scales[layer]
        return np.asarray(np.clip(np.round(x * scales[place + 3]), -127, 127) * scales[place + 1])


def memory_of(tensors: tuple[torch.Tensor, ...]) -> list[Array]:
    assert all(tensor.is_contiguous() for tensor in tensors)
    assert len({tensor.dtype for tensor in tensors}) == 1
    if tensors[0].dtype == torch.float16:
        return [tensor.numpy().reshape(-1) for tensor in tensors]
    return [tensor.float().numpy().reshape(-1) for tensor in tensors]


def bert(*arguments: object) -> Encoder:
    """The class FasterTransformer.Bert."""
    tensors: tuple[torch.Tensor, ...] = arguments[:16]  # type: ignore[assignment]
    heads, size, inner, removes_padding, layers, sparse, score_scaling, *parallel = arguments[16:]
    assert (sparse, score_scaling, parallel) == (False, 1.0, [1, 1])
    if tensors[0].dtype == torch.bfloat16:
        raise RuntimeError("Wrong Tensor type.")
    sizes = (int(heads), int(size), int(inner))  # type: ignore[call-overload]
    memory = [values.astype(np.float32) for values in memory_of(tensors)]
    return Encoder(memory, sizes, int(layers), bool(removes_padding), tensors[0].dtype, np.zeros(0))  # type: ignore[call-overload]


def int8_bert(*arguments: object) -> Encoder:
    """The class FasterTransformer.INT8Bert."""
    tensors: tuple[torch.Tensor, ...] = arguments[:16]  # type: ignore[assignment]
    on_device, on_host, heads, size, removes_padding, layers, mode, sparse, score_scaling = arguments[16:]
    assert (sparse, score_scaling) == (False, 1.0)
    assert isinstance(on_device, torch.Tensor)
    assert isinstance(on_host, torch.Tensor)
    assert torch.equal(on_device, on_host)
    sizes = (int(heads), int(size), 4 * int(heads) * int(size))  # type: ignore[call-overload]
    assert on_host.shape == (layers, 72 + 9 * sizes[0] * sizes[1] + 8 + 3 + 21)
    memory = memory_of(tensors)
    return Encoder(memory, sizes, int(layers), bool(removes_padding), torch.float16, on_host.numpy(), int(mode))  # type: ignore[call-overload]


def weight_quantize(weight: torch.Tensor, ranges: torch.Tensor, sparse: bool) -> torch.Tensor:
    """The operator fastertransformer::weight_quantize: INT8 in the first half of the memory of an FP16 tensor."""
    assert not sparse
    assert weight.is_contiguous()
    assert weight.dtype == ranges.dtype == torch.float32
    assert ranges.shape == (weight.shape[1],)
    rounded = (weight * 127 / ranges).round().clamp(-127, 127).to(torch.int8)
    result = torch.zeros(weight.numel(), dtype=torch.float16)
    result.view(torch.int8)[: weight.numel()] = rounded.flatten()
    return result


def install(monkeypatch: pytest.MonkeyPatch, load: Callable[[str], None]) -> None:
    """Replace torch.classes and the operator. `load` is called with the path of a library."""
    classes = SimpleNamespace(load_library=load, FasterTransformer=SimpleNamespace(Bert=bert, INT8Bert=int8_bert))
    monkeypatch.setattr(torch, "classes", classes)
    operators = SimpleNamespace(weight_quantize=weight_quantize)
    monkeypatch.setattr(torch.ops, "fastertransformer", operators, raising=False)
