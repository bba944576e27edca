"""Labels along whole networks: what parameters bear, layers used twice, branches that meet, and what the output holds."""

import torch
from torch import Tensor, nn

import graphprune
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.rules.propagation import alike

IMAGE = torch.zeros(1, 1, 4, 4)


def edges(graph: ChannelGraph) -> set[tuple[str, str]]:
    names = [node.name for node in graph.nodes]
    return {(names[a], names[b]) for a, b in graph.edge_index.T.tolist()}


def atoms(graph: ChannelGraph) -> dict[tuple[str, int], list[int]]:
    """(tensor, dimension) -> the prunable atom of each slice, -1 = it stays."""
    found = {(site.tensor, site.dim): torch.where(site.atoms < graph.num_atoms, site.atoms, -1) for site in graph.sites}
    return {key: labels.tolist() for key, labels in found.items()}


class Scaled(nn.Module):
    """A parameter and a buffer as operands, of one number a channel, and a lone number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 2, 1)
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("alone", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.b((self.a(x) * self.scale + self.shift) / self.alone)


def test_a_parameter_of_one_number_a_channel_is_cut_with_the_channels() -> None:
    found = atoms(graphprune.trace(Scaled(), IMAGE))
    assert found["a.weight", 0] == found["scale", 0] == found["shift", 1] == found["b.weight", 1] == [0, 1, 2]
    assert "alone" not in {tensor for tensor, _ in found}


class Again(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.bn = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.b(self.bn(self.b(self.a(x)))))


def test_a_layer_used_again_is_another_node_of_the_same_channels() -> None:
    graph = graphprune.trace(nn.Sequential(Again(), nn.Conv2d(3, 2, 1)), IMAGE)
    assert [node.name for node in graph.nodes] == ["0.a", "0.b", "0.bn", "0.b:2", "0.bn:2", "1"]
    assert [(group.name, group.channels) for group in graph.groups] == [("0.a", 3)]
    assert atoms(graph)["0.b.weight", 0] == atoms(graph)["0.b.weight", 1] == [0, 1, 2]


class Branches(nn.Module):
    """A deep and a shallow branch, added up; the sum goes on."""

    def __init__(self, swapped: bool) -> None:
        super().__init__()
        self.stem, self.deep, self.deeper, self.side, self.last = (nn.Conv2d(n, 2, 1) for n in (1, 2, 2, 2, 2))
        self.swapped = swapped

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        one, other = self.deeper(self.deep(x)), self.side(x)
        return self.last(other + one if self.swapped else one + other)


def test_an_addition_belongs_to_the_deeper_branch_however_it_is_written() -> None:
    for swapped in (False, True):
        found = edges(graphprune.trace(Branches(swapped), IMAGE))
        straight = {("stem", "deep"), ("deep", "deeper"), ("stem", "side"), ("deeper", "last")}
        assert found == straight | {("side", "deeper")}


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 1, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.cat([self.a(x), torch.relu(self.b(x))], 1))


def test_joined_branches_both_feed_what_reads_them() -> None:
    graph = graphprune.trace(Joined(), IMAGE)
    assert edges(graph) == {("a", "c"), ("b", "c")}


class Two(nn.Module):
    """Two outputs, one of them a layer that another one reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.b(self.a(x))
        return {"early": y, "late": self.c(y)}


def test_all_that_is_put_out_stays() -> None:
    graph = graphprune.trace(Two(), IMAGE)
    assert [group.name for group in graph.groups] == ["a"]
    assert graph.frozen == dict.fromkeys(("b", "c"), "its channels are the network's output")


def test_labels_are_alike_where_every_tensor_has_the_results_shape() -> None:
    x, y = torch.zeros(1, 2), torch.zeros(3)
    assert alike(x, torch.ones(1, 2))
    assert not alike(x, y)
    assert alike((x, [y]), (x, [y]))
    assert not alike((x, [y]), (y, [x]))
    assert not alike((x, [y]), (x,))


def test_a_size_that_is_read_is_no_data_flow() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            return self.c(self.b(y).view(y.shape[0], -1))

    graph = graphprune.trace(Sized(), torch.zeros(2, 4))
    assert graph.edge_index.T.tolist() == [[0, 1], [1, 2]]
