"""The scores of edges that the rules differ by."""

import torch
from torch import nn

from graphprune import spectral

RULES = ["resistance", "degree", "adjacency", "paths"]


def linear(*rows):
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


def test_rules_differ_where_they_should():
    layer = linear([3.0, 0.0], [0.0, 2.0])
    found = {rule: spectral.scores(layer, None, rule)["weight"] for rule in RULES[:3]}
    assert found["resistance"].tolist() == [[1, 0], [0, 1]]
    assert found["degree"].tolist() == [[2, 0], [0, 2]]
    torch.testing.assert_close(found["adjacency"], torch.tensor([[3.0, 0.0], [0.0, 2.0]], dtype=torch.float64))


def test_polar_factor_is_the_slope_of_the_sum_of_singular_values():
    weight = torch.rand(5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    torch.linalg.svdvals(weight).sum().backward()
    torch.testing.assert_close(spectral.polar(weight), weight.grad.abs())
