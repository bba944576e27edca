"""Kept shares as node features: literal on a hand-sized graph, and whole through the fast path."""

import math

import pytest
import torch

from graphprune import models
from graphprune.encoders.encoder import GraphEncoder
from graphprune.encoders.scorer import Scorer
from graphprune.encoders.width_features import WIDTH, shares
from graphprune.graph import channel_graph
from graphprune.graph.channel_graph import Group, Node
from graphprune.pruning.masks import first_scores, kept_masks


def hand_sized():
    """conv a (4 channels) -> conv b (2) -> a layer that reads both -> fc, never pruned; b's channels are shared by 3 layers."""
    nodes = (
        Node("a", "conv", 4, (0, 1, 2, 3)),
        Node("b", "conv", 2, (4, 5)),
        Node("cat", "pool", 6, (0, 1, 2, 3, 4, 5)),
        Node("fc", "fc", 3, (-1, -1, -1)),
    )
    edges = torch.tensor([[0, 1, 0, 2], [1, 2, 2, 3]])
    groups = (Group("a", 4, ("a",), 4), Group("b", 2, ("b", "b2", "b3"), 6))
    return channel_graph.ChannelGraph(nodes, edges, groups)


def test_features_are_literal() -> None:
    kept = torch.tensor([[True, False, False, True, True, True]])
    found = shares(hand_sized())(kept)
    assert found.shape == (1, 4, WIDTH)
    for node, (s, t, w) in enumerate(
        [(math.log(0.5), -1, 0), (0, -1 / 3, 1), (math.log(0.5) * 4 / 6, 1 / 3, 2 / 6), (0, 1, -1)]
    ):
        expected = [number * t**power * shared for number in (1, s) for power in range(4) for shared in (1, w)]
        torch.testing.assert_close(found[0, node], torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("name", ["tiny_cnn", "resnet8"])
def test_the_fast_path_is_pyg_on_a_batch(name: str) -> None:
    from torch_geometric.data import Batch, Data

    net = models.seeded(name, 0, in_channels=1)
    traced = channel_graph.trace(net, torch.zeros(1, 1, 8, 8))
    indices = torch.randint(10, (6, len(traced.groups)), generator=torch.Generator().manual_seed(0))
    encoder, scores = GraphEncoder.seeded(0, WIDTH, hidden=16), first_scores(traced)
    x = shares(traced)(kept_masks(traced, indices, scores))
    batch = Batch.from_data_list([Data(x=row, edge_index=traced.edge_index) for row in x])
    found = Scorer(encoder, traced, scores, features=shares(traced)).embed(indices)
    torch.testing.assert_close(found, encoder(batch).detach(), atol=1e-4, rtol=1e-4)


def test_which_channels_survive_does_not_matter() -> None:
    kept = torch.tensor([[True, False, False, True, True, False], [False, True, True, False, False, True]])
    found = shares(hand_sized())(kept)
    assert torch.equal(found[0], found[1])
