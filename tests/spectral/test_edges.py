"""Convolutions as bipartite graphs, by hand."""

import pytest
import torch
from torch import nn

from graphprune import spectral


def test_channels_reading_adds_up_slices_as_parallel_edges():
    """A slice's nine weights share its leverage in proportion to their size; together still nodes - components."""
    conv = nn.Conv2d(2, 3, 3, bias=False)
    score = spectral.scores(conv, None, conv="channels")["weight"]
    assert float(score.sum()) == pytest.approx(3 + 2 - 1)
    share = score[0, 0] / score[0, 0].sum()
    torch.testing.assert_close(share.float(), (conv.weight[0, 0].abs() / conv.weight[0, 0].abs().sum()).detach())
    assert float(spectral.scores(conv, None)["weight"].sum()) == pytest.approx(3 + 18 - 1)


def test_each_group_of_a_convolution_is_a_graph_of_its_own():
    conv = nn.Conv2d(4, 4, 3, groups=4, bias=False)
    score = spectral.scores(conv, None)["weight"]
    torch.testing.assert_close(score, torch.ones(4, 1, 3, 3, dtype=torch.float64))  # nine edges in a star: all are bridges
    assert float(spectral.scores(conv, None, conv="channels")["weight"].sum()) == pytest.approx(4)
