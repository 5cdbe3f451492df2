"""Merge linear layers that read the same input, such as query, key and value, into one product."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch

PRODUCT = ".merged.product"
"""End of the path of a merged product. Before it is the path of the first layer that it replaces."""


class MergedLinear(torch.nn.Module):
    """One linear layer in the place of several. The first of its parts computes all outputs, and the last frees them.

    Attributes:
        product: the layer; its output has the outputs of all parts one after another.
    """

    def __init__(self, layers: Sequence[torch.nn.Linear]) -> None:
        super().__init__()
        self.sizes = [layer.out_features for layer in layers]
        weight = torch.cat([layer.weight.detach() for layer in layers])
        biases = [layer.bias for layer in layers]
        self.product = torch.nn.Linear(weight.shape[1], weight.shape[0], any(bias is not None for bias in biases))
        self.product.weight = torch.nn.Parameter(weight, requires_grad=False)
        if self.product.bias is not None:
            zeros = [weight.new_zeros(size) for size in self.sizes]
            values = [zero if bias is None else bias.detach() for bias, zero in zip(biases, zeros, strict=True)]
            self.product.bias = torch.nn.Parameter(torch.cat(values), requires_grad=False)
        self.output: torch.Tensor | None = None

    def part(self, x: torch.Tensor, number: int) -> torch.Tensor:
        """Return the output of one part. Parts are called in their order, with the same `x`."""
        if number == 0:
            self.output = self.product(x)
        output = self.output
        assert output is not None
        if number == len(self.sizes) - 1:
            self.output = None
        start = sum(self.sizes[:number])
        return output[..., start : start + self.sizes[number]]


class MergedPart(torch.nn.Module):
    """Stands in the place of a linear layer and returns its part of the merged output."""

    def __init__(self, merged: MergedLinear, number: int) -> None:
        super().__init__()
        self.merged = merged
        self.number = number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.merged.part(x, self.number)


def merge_linears(encoder: torch.nn.Module, groups: Sequence[Sequence[str]]) -> None:
    """Replace each group of linear layers by parts of a merged layer, in place.

    Args:
        groups: paths of layers, see `groups_of_calls`.
    """
    for group in groups:
        layers = [encoder.get_submodule(name) for name in group]
        merged = MergedLinear([layer for layer in layers if isinstance(layer, torch.nn.Linear)])
        for number, name in enumerate(group):
            encoder.set_submodule(name, MergedPart(merged, number))


def shared_inputs(
    encoder: torch.nn.Module, inputs: Mapping[str, torch.Tensor], among: Collection[str]
) -> list[list[str]]:
    """Return the groups of linear layers that read the same input, from one pass of the encoder.

    Args:
        inputs: inputs of the encoder, see backends/model/adapted_encoders.py.
        among: paths of the layers that may be merged.
    """
    calls: list[tuple[str, torch.Tensor]] = []
    hooks = [
        encoder.get_submodule(name).register_forward_pre_hook(
            lambda module, arguments, name=name: calls.append((name, arguments[0]))
        )
        for name in among
    ]
    with torch.inference_mode():
        encoder(**inputs)
    for hook in hooks:
        hook.remove()
    # All inputs still exist, so equal addresses mean the same input.
    return groups_of_calls([(name, (x.data_ptr(), x.shape, x.stride())) for name, x in calls])


def groups_of_calls(calls: Sequence[tuple[str, object]]) -> list[list[str]]:
    """Return the groups of layers that can be merged.

    The layers of a group are always called in the same order, one round after another, and in each round with the same
    input. A layer is in at most one group.

    Args:
        calls: path of the layer and its input, in the order of the calls.
    """
    by_input: dict[object, list[str]] = {}
    for name, read in calls:
        names = by_input.setdefault(read, [])
        if name not in names:
            names.append(name)
    groups: list[list[str]] = []
    for names in by_input.values():
        taken = {name for group in groups for name in group}
        if len(names) > 1 and not taken & set(names) and _in_rounds(calls, names):
            groups.append(names)
    return groups


def _in_rounds(calls: Sequence[tuple[str, object]], names: Sequence[str]) -> bool:
    own = [(name, read) for name, read in calls if name in names]
    rounds = [own[start : start + len(names)] for start in range(0, len(own), len(names))]
    return all([name for name, _ in part] == list(names) and len({read for _, read in part}) == 1 for part in rounds)
