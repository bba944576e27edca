"""The objective of given scores, by hand."""

import math

import pytest
import torch
from tiny_programs import fc, images

from graphprune.neurons import bounds, read, replay


def test_the_sum_of_the_largest_leaves_the_smallest_layer_out():
    s = [torch.tensor([1.0, 0.0]), torch.tensor([1.0]), torch.tensor([0.0, 0.0])]  # -1.5, -1, -2
    assert replay.sparsity(s).item() == -2.5
    assert replay.sparsity(s[:1]).item() == -1.5


def test_the_objective_of_silent_neurons_is_that_of_the_last_bias():
    net, x, y = fc(0, 2, 3, 2), images(0, 2, 2).double(), torch.tensor([0, 1])
    net[2].bias.data = torch.tensor([1.0, 1.0])
    chain = read(net, x)
    found = bounds.propagate(chain, x, 0.0, "exact")
    value = replay.objective(chain, found, x, y, [torch.zeros(3).double()], 5.0)
    assert value.item() == pytest.approx(5 * math.log(2) - 2)


def test_the_first_layer_is_scaled_when_the_image_is_known():
    net, x = fc(1, 2, 3, 2), images(1, 2, 2).double()
    chain = read(net, x)
    found, s = bounds.propagate(chain, x, 0.0, "exact"), torch.tensor([0.0, 0.3, 1.0]).double()
    hidden = replay.values(chain, found, x, [s])[1]
    assert torch.allclose(hidden, s * net.double()[0](x).relu())
