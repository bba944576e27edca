"""Narrower networks: how wide they are, and what cannot be had."""

import pytest
import torch

from graphprune.compression import graph_data, networks, recipes
from graphprune.compression.width_pruning import prune_width

KARATE = graph_data.load("karate")


def width(model: str, sparsity: float) -> int:
    net = networks.build(model, KARATE, recipes.find("karate", model), seed=0)
    small = prune_width(net, KARATE, sparsity)
    (batch,) = KARATE.batches("test", 1)
    assert small(*batch.inputs).shape == (34, 2)
    return int(small.layers[1].lin.in_features)


def test_the_share_of_weights_is_the_share_of_hidden_units() -> None:
    assert [width("gcn", share) for share in (0.0625, 0.5, 0.75, 0.9)] == [15, 8, 4, 1]


def test_of_a_gat_whole_heads_go() -> None:
    assert width("gat", 0.5) == 8  # two of four heads of width 4


def test_the_units_of_smallest_norm_go() -> None:
    net = networks.build("gcn", KARATE, recipes.find("karate", "gcn"), seed=0)
    with torch.no_grad():
        net.layers[0].lin.weight[:8] *= 1e-3
    small = prune_width(net, KARATE, 0.5)
    assert torch.equal(small.layers[0].lin.weight, net.layers[0].lin.weight[8:])


@pytest.mark.parametrize(
    ("sparsity", "message"),
    [
        (1, "sparsity=1: must be below 1"),
        (-0.1, "from 0 to 1"),
        (0.99, "sparsity=0.99 is out of reach for a width: the smallest network allowed has"),
    ],
)
def test_what_cannot_be_had_is_refused(sparsity: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        width("gcn", sparsity)
