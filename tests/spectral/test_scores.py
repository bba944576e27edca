"""The scores of edges that the rules differ by."""

import pytest
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


def test_the_node_rule_gives_chances_and_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match=r"rule='node': it gives chances \(keep_chances\) and no scores; use 'resistance', "):
        spectral.scores(linear([1.0]), None, "node")
    with pytest.raises(
        ValueError, match="rule='edges' is unknown: use 'resistance', 'degree', 'adjacency', 'paths', or to sample"
    ):
        spectral.scores(linear([1.0]), None, "edges")
