"""Sums over paths, against all paths written out."""

from itertools import product

import pytest
import torch
from torch import nn

from graphprune import models
from graphprune.pruning import weight_masks
from graphprune.pruning.weight_paths import flow


def test_flow_adds_up_all_paths():
    """Every path of a 3-4-2-3 network, one after the other."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3))
    values = {name: weight.detach().abs().double() for name, weight in weight_masks.prunable(net).items()}
    a, b, c = values.values()
    expected = {name: torch.zeros_like(value) for name, value in values.items()}
    for i, j, k, o in product(range(3), range(4), range(2), range(3)):
        strength = a[j, i] * b[k, j] * c[o, k]
        for name, place in zip(expected, [(j, i), (k, j), (o, k)], strict=True):
            expected[name][place] += strength
    found = flow(net, torch.zeros(1, 3), values)
    for name, value in expected.items():
        torch.testing.assert_close(found.weights[name], value)
        torch.testing.assert_close(found.neurons[name], value.sum(1))
    torch.testing.assert_close(found.inputs, expected["0.weight"].sum(0))
    torch.testing.assert_close(found.outputs, expected["4.weight"].sum(1))


def test_flow_leaves_the_network_alone_and_refuses_what_is_negative_or_too_large():
    net = models.seeded("tiny_cnn", 0, in_channels=1)
    values = {name: weight.detach().abs() for name, weight in weight_masks.prunable(net).items()}
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    flow(net, torch.zeros(1, 1, 8, 8), values)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    with pytest.raises(ValueError, match="negative"):
        flow(net, torch.zeros(1, 1, 8, 8), {name: -value for name, value in values.items()})
    with pytest.raises(ValueError, match="too large for a float64"):
        flow(net, torch.zeros(1, 1, 8, 8), {name: 1e200 * value.double() for name, value in values.items()})
