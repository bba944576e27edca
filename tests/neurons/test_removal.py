"""Masked units say a constant; removed for real they leave it in the next bias, or the removal is refused."""

import pytest
import torch
from tiny_programs import conv, fc, images
from torch import nn

import graphprune
from graphprune import neurons


def traced(net: nn.Module, x: torch.Tensor) -> graphprune.ChannelGraph:
    return graphprune.trace(net, x[:1])


def keep_first(graph: graphprune.ChannelGraph) -> dict[str, torch.Tensor]:
    return {group.name: torch.arange(group.channels) < 1 for group in graph.groups}


def test_a_masked_unit_says_its_bias():
    net, x = fc(0, 2, 3, 2), images(0, 4, 2)
    net[0].bias.data = torch.tensor([0.0, 0.5, -1.0])
    masked = neurons.mask_units(net, traced(net, x), {"0": torch.tensor([True, False, False])})
    assert masked[:2](x)[:, 1:].tolist() == [[0.5, 0.0]] * 4
    assert net[0].weight.abs().min() > 0


@pytest.mark.parametrize(("net", "shape"), [(fc(1, 3, 4, 3, 2), (3,)), (conv(1, nn.MaxPool2d(2)), (1, 5, 5))])
def test_removed_units_leave_their_constants(net, shape):
    x = images(1, 6, *shape)
    graph = traced(net, x)
    keep = keep_first(graph)
    small = neurons.remove(net, graph, keep, x)
    assert torch.allclose(small(x), neurons.mask_units(net, graph, keep)(x), atol=1e-5)
    assert not torch.allclose(graphprune.prune(net, graph, keep)(x), small(x), atol=1e-3)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())


def test_a_constant_that_meets_padding_is_refused():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2))
    net[0].bias.data.fill_(1.0)
    x = images(2, 2, 1, 5, 5)
    graph = traced(net, x)
    with pytest.raises(ValueError, match="differs from pixel to pixel"):
        neurons.remove(net, graph, keep_first(graph), x)
    net[0].bias.data.fill_(-1.0)  # a unit that says 0 is no trouble
    assert neurons.remove(net, graph, keep_first(graph), x)[0].out_channels == 1


def test_a_layer_without_a_bias_is_refused():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2, bias=False))
    net[0].bias.data.fill_(1.0)
    x = images(3, 2, 2)
    with pytest.raises(ValueError, match="has no bias to take it"):
        neurons.remove(net, traced(net, x), {"0": torch.tensor([True, False, False])}, x)


def test_a_keep_that_does_not_fit_is_refused():
    net, x = fc(0, 2, 3, 2), images(0, 1, 2)
    with pytest.raises(ValueError, match="keep"):
        neurons.mask_units(net, traced(net, x), {"1": torch.ones(3, dtype=torch.bool)})
