"""A layer is replaced under all its names, and where it is the whole network."""

import torch
from torch import nn

from graphprune.compression.replacement import replace


def test_a_shared_layer_is_replaced_under_all_its_names_and_wraps_itself() -> None:
    layer = nn.Linear(2, 2)
    network = nn.ModuleDict({"a": layer, "b": nn.Sequential(nn.ReLU(), layer)})
    new = nn.Sequential(layer)
    assert replace(network, layer, new) is network
    assert network["a"] is network["b"][1] is new
    assert new[0] is layer


def test_a_network_that_is_the_layer_becomes_the_new_one() -> None:
    layer, new = nn.Linear(2, 2), nn.Identity()
    assert replace(layer, layer, new) is new
    assert torch.equal(new(torch.ones(1)), torch.ones(1))
