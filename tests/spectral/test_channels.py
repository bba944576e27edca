"""Scores of whole channels."""

import pytest
import torch

import graphprune
from graphprune import models, spectral


def test_channel_scores_are_expected_edges_in_a_random_spanning_tree():
    """Over a layer's channels they add up to nodes - 1; coupled layers add up."""
    net = models.seeded("tiny_cnn", 0, in_channels=1)
    graph = graphprune.trace(net, torch.zeros(1, 1, 8, 8))
    found = spectral.channel_scores(net, graph)
    assert float(found["conv1"].sum()) == pytest.approx((4 + 1 - 1) + (4 + 4 - 1), rel=1e-6)
    assert float(found["conv3"].sum()) == pytest.approx(4 + 3 - 1, rel=1e-6)


def test_channel_scores_drive_prune():
    net = models.seeded("tiny_cnn", 0, in_channels=1).eval()
    graph = graphprune.trace(net, torch.zeros(1, 1, 8, 8))
    keep = {name: score >= score.sort().values[1] for name, score in spectral.channel_scores(net, graph).items()}
    small = graphprune.prune(net, graph, keep)
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(small(x), graphprune.masked(net, graph, keep)(x))
    assert small.conv1.out_channels == 3


@pytest.mark.parametrize("rule", ["paths", "node", "edges"])
def test_channel_scores_refuse_other_rules(rule):
    net = models.seeded("tiny_cnn", 0, in_channels=1)
    with pytest.raises(ValueError, match=f"rule='{rule}': channels are scored by 'resistance', 'degree' or 'adjacency'"):
        spectral.channel_scores(net, graphprune.trace(net, torch.zeros(1, 1, 8, 8)), rule=rule)
