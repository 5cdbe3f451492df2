"""Groups of linear layers that read the same input."""

from __future__ import annotations

import torch
from torch.nn import functional

from backends.torch_.merged_linear import groups_of_calls, merge_linears, shared_inputs


class Gated(torch.nn.Module):
    """Two layers with the same input, one with a bias, and a layer after them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = torch.nn.Linear(4, 6, bias=False), torch.nn.Linear(4, 6), torch.nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return hidden


def test_only_layers_in_rounds_with_the_same_input_are_merged() -> None:
    rounds = [("q", 1), ("k", 1), ("v", 1), ("o", 2)]
    assert groups_of_calls(rounds) == [["q", "k", "v"]]
    again = [(name, read + 10) for name, read in rounds]
    assert groups_of_calls(rounds + again) == [["q", "k", "v"]]
    assert groups_of_calls([*rounds, ("k", 3), ("q", 3)]) == []  # in another order, and without v
    assert groups_of_calls([*rounds, ("q", 4), ("k", 4), ("v", 5)]) == [["q", "k"]]  # v also reads another input
    assert groups_of_calls([("a", 1), ("b", 1), ("a", 1), ("b", 1)]) == [["a", "b"]]
    assert groups_of_calls([("a", 1), ("b", 2)]) == []


def test_a_merged_layer_computes_the_same_with_one_product() -> None:
    torch.manual_seed(0)
    model, x = Gated(), torch.randn(2, 3, 4)
    with torch.inference_mode():
        expected = model(x)
        groups = shared_inputs(model, {"x": x}, ["gate", "up", "down"])
        assert groups == [["gate", "up"]]
        merge_linears(model, groups)
        products: list[torch.nn.Module] = []
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_hook(lambda module, *_: products.append(module))
        torch.testing.assert_close(model(x), expected)
    assert [product.weight.shape for product in products] == [(12, 4), (4, 6)]


def test_layers_that_may_not_be_merged_are_not() -> None:
    with torch.inference_mode():
        assert shared_inputs(Gated(), {"x": torch.ones(1, 4)}, ["gate", "down"]) == []
