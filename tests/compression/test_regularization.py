"""Proximal steps against their formulas, and the zeros they make in training."""

import math

import pytest
import torch
from torch import nn

from graphprune.compression import graph_data, networks, recipes, training
from graphprune.compression.regularization import Units, count_zeros, group_lasso, hidden_units, l1

KARATE = graph_data.load("karate")
RECIPE = recipes.find("karate", "gcn")


def stepped(weight: list[list[float]], gradient: list[list[float]], lr: float = 0.1) -> tuple[nn.Linear, torch.optim.Adam]:
    """A layer after the first step of Adam, which moves every weight by lr."""
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    adam = torch.optim.Adam(layer.parameters(), lr=lr)
    layer.weight.grad = torch.tensor(gradient)
    adam.step()
    return layer, adam


def test_l1_moves_each_weight_towards_zero_by_its_own_threshold_and_stops_there() -> None:
    layer, adam = stepped([[1.0, -1.0, 0.11]], [[2.0, -4.0, 1.0]])  # then 0.9, -0.9, 0.01; thresholds 0.1 x 0.5 / |gradient|
    l1(0.5)(layer, adam)
    assert layer.weight[0].tolist() == pytest.approx([0.9 - 0.025, -0.9 + 0.0125, 0.0], abs=1e-6)
    assert layer.weight[0, 2] == 0


def test_group_lasso_shrinks_the_norm_of_a_unit_and_removes_it_as_a_whole() -> None:
    layer, adam = stepped([[3.1, 4.1], [0.11, 0.11]], [[1.0, 1.0], [1.0, 1.0]])  # then (3, 4) and (0.01, 0.01)
    group_lasso(2.0, [Units(2, ("weight",))])(layer, adam)
    factor = 1 - 0.1 * 2.0 * math.sqrt(2) / 5
    assert layer.weight[0].tolist() == pytest.approx([3 * factor, 4 * factor], abs=1e-5)
    assert layer.weight[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("model", ["gcn", "gin", "gat", "sage"])
def test_hidden_units_name_weights_whose_rows_belong_together(model: str) -> None:
    net = networks.build(model, KARATE, recipes.find("karate", model), seed=0)
    units = hidden_units(net, KARATE)
    assert units
    assert all(net.get_parameter(weight).shape[0] % layer.count == 0 for layer in units for weight in layer.weights)
    assert "layers.1.lin.weight" not in {weight for layer in units for weight in layer.weights}  # its units are the classes


def test_training_with_l1_makes_weights_zero_and_with_group_lasso_whole_units() -> None:
    plain, sparse, narrow = (networks.build("gcn", KARATE, RECIPE, seed=0) for _ in range(3))
    training.fit(plain, KARATE, RECIPE, seed=0, best=False)
    training.fit(sparse, KARATE, RECIPE, seed=0, after_step=l1(3e-3), best=False)
    training.fit(narrow, KARATE, RECIPE, seed=0, after_step=group_lasso(1e-3, hidden_units(narrow, KARATE)), best=False)
    assert count_zeros(plain) == 0
    assert 0.2 < count_zeros(sparse) < 1
    rows = narrow.layers[0].lin.weight
    gone = (rows == 0).all(1)
    assert 0 < int(gone.sum()) < 16
    assert bool((rows[~gone] != 0).all())


@pytest.mark.parametrize("strength", [-1.0, float("inf"), float("nan")])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength="):
        l1(strength)
    with pytest.raises(ValueError, match="strength="):
        group_lasso(strength, [])
