"""Scores of whole paths."""

import pytest
import torch
from torch import nn

import graphprune
from graphprune.spectral.paths import strongest


def test_paths_keeps_whole_paths():
    """As the power grows, a weight's score is its strongest path's product; the top scores leave no dead end."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    a, b, c = (layer.weight.detach().abs().double() for layer in (net[0], net[2], net[4]))
    best_in, best_out = a.amax(1), c.amax(0)
    products = best_out[:, None] * b * best_in  # of the strongest path through each weight of the middle layer

    class Shape:
        def example(self):
            return torch.zeros(1, 6)

    strengths = {"0.weight": a, "2.weight": b, "4.weight": c}
    found = strongest(net, Shape(), strengths, power=40.0)["2.weight"]
    torch.testing.assert_close(found / found.max(), products / products.max(), rtol=0.08, atol=0)
    one = strongest(net, Shape(), strengths, power=1.0)["2.weight"]
    whole = c.sum(0)[:, None] * b * a.sum(1)
    torch.testing.assert_close(one / one.max(), whole / whole.max())


def test_layers_that_turn_paths_negative_are_refused():
    """A softmax over the outputs: more of one is less of the others."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Softmax(1), nn.Linear(2, 2))
    data = graphprune.data.from_tensors(
        train=(torch.rand(4, 2), torch.arange(4) % 2), val=(torch.rand(4, 2), torch.arange(4) % 2)
    )
    strengths = {"0.weight": torch.ones(2, 2).double(), "2.weight": torch.tensor([[1.0, 0.5], [1.0, 0.5]]).double()}
    with pytest.raises(ValueError, match=r"flows through '0\.weight' is negative or not a number.* use a network with ReLU"):
        strongest(net, data, strengths)
