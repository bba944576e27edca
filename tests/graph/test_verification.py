"""The proof before a network is handed out: a graph that is wrong about where channels lie is found out."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import graphprune
from graphprune.graph.channel_graph import ChannelGraph, Site

IMAGE = torch.zeros(1, 1, 4, 4)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1), nn.Conv2d(3, 2, 1)).eval()


def changed(graph: ChannelGraph, tensor: str, dim: int, *atoms: int) -> ChannelGraph:
    """The graph, wrong about one site; without atoms, ignorant of it."""
    at = next(index for index, site in enumerate(graph.sites) if (site.tensor, site.dim) == (tensor, dim))
    new = [Site(tensor, dim, torch.tensor(atoms))] if atoms else []
    return replace(graph, sites=(*graph.sites[:at], *new, *graph.sites[at + 1 :]))


def keep(graph: ChannelGraph) -> dict[str, Tensor]:
    return graph.full() | {"0": torch.tensor([True, False, True, True])}


def test_a_right_graph_is_proven() -> None:
    model = network()
    graph = graphprune.trace(model, IMAGE)
    assert graphprune.prune(model, graph, keep(graph))[2].weight.shape == (3, 3, 1, 1)


@pytest.mark.parametrize(
    ("tensor", "dim", "atoms"),
    [
        ("2.weight", 1, ()),  # too many columns are left
        ("2.weight", 1, (2, 1, 0, 3)),  # as many as there must be, but in another order
        ("1.running_mean", 0, ()),
        ("1.weight", 0, (0, 1, 3, 2)),
        ("0.bias", 0, (3, 1, 2, 0)),
    ],
)
def test_a_graph_that_is_wrong_about_a_tensor_is_found_out(tensor: str, dim: int, atoms: tuple[int, ...]) -> None:
    model = network()
    graph = changed(graphprune.trace(model, IMAGE), tensor, dim, *atoms)
    with pytest.raises(ValueError, match=r"at node '.*' would change what it computes: .*"):
        graphprune.prune(model, graph, keep(graph))


class Bound(nn.Module):
    """Reads as many channels of one branch as another one has: it works as long as both lose the same number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.last = nn.Conv2d(1, 4, 1), nn.Conv2d(1, 4, 1), nn.Conv2d(1, 3, 1), nn.Conv2d(4, 2, 1)
        self.end = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(x)
        return self.last(self.a(x)[:, : y.shape[1]]) + self.last(y) + self.end(self.c(x))


def test_what_breaks_at_a_smaller_size_is_never_offered() -> None:
    graph = graphprune.trace(Bound(), IMAGE)
    assert [group.name for group in graph.groups] == ["c"]
    assert {"a", "b"} <= set(graph.frozen)
