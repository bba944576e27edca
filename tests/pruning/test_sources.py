"""The tensors that channels come from, on networks small enough to name them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import graphprune
from graphprune.graph.channel_graph import ChannelGraph, Group, Node, Site
from graphprune.pruning.sources import own_tensors, sources_of


class Mixed(nn.Module):
    """A gain makes three channels, a layer four, F.linear two; a layer reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.w = nn.Parameter(torch.rand(3)), nn.Parameter(torch.rand(2, 4))
        self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.linear(self.a(x * self.gain), self.w))


def test_layers_functions_and_bare_parameters_make_channels() -> None:
    model = Mixed()
    graph = graphprune.trace(model, torch.zeros(1, 1))
    found = sources_of(model, graph)
    assert {source.name: tuple(source.rows(source.tensor).shape) for source in found} == {
        "a": (4, 3),
        "gain": (3, 1),
        "w": (2, 4),
    }
    spans = {name: list(range(span.start, span.stop)) for name, span in graph.slices.items()}
    assert {source.name: list(source.atoms) for source in found} == {
        "a": spans["a"],
        "gain": spans["parameter"],
        "w": spans["w"],
    }
    assert own_tensors(graph, model) == {"parameter": {"gain"}}


def test_rows_of_a_transposed_convolution_are_its_output_channels() -> None:
    layer = nn.ConvTranspose2d(2, 3, 1)
    nodes, groups = (Node("0", "conv", 3, (0, 1, 2)),), (Group("0", 3, ("0",), 3),)
    (source,) = sources_of(nn.Sequential(layer), ChannelGraph(nodes, torch.zeros(2, 0).long(), groups))
    assert torch.equal(source.rows(source.tensor), layer.weight[:, :, 0, 0].T)


def test_a_tensor_that_the_model_has_not_makes_nothing() -> None:
    sites = (Site("gone", 0, torch.arange(3)),)
    graph = ChannelGraph((), torch.zeros(2, 0).long(), (Group("parameter", 3, (), 0),), sites=sites)
    assert sources_of(nn.Linear(3, 1), graph) == []
    assert own_tensors(graph, nn.Linear(3, 1)) == {"parameter": set()}
