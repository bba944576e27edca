"""Shares of the multiply-adds, by hand."""

import pytest
import torch
from torch import nn

import graphprune
from graphprune.graph.inputs import as_inputs
from graphprune.graph.layer_costs import shares_of_layers


def test_shares_of_a_small_network_by_hand() -> None:
    """On 8x8 images a 3x3 convolution from a to b channels does 576 a b multiply-adds: 576 (4 + 16 + 12) + 30 = 18,462."""
    found = shares_of_layers(graphprune.models.tiny_cnn(), as_inputs(torch.zeros(1, 1, 8, 8)))
    assert found == pytest.approx({"conv1": 2304 / 18462, "conv2": 9216 / 18462, "conv3": 6912 / 18462, "fc": 30 / 18462})


def test_a_forward_that_needs_values_has_no_shares() -> None:
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) if float(x.sum()) > 0 else x

    assert shares_of_layers(Choosing(), as_inputs(torch.ones(1, 2))) == {}
