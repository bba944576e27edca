"""The channel graph of hand-sized networks, written out."""

from fractions import Fraction

import pytest
import torch
from torch import nn

import graphprune
from graphprune.graph.channel_graph import ChannelGraph, Group, Node
from graphprune.pruning.rates import kept_counts


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))


def test_nodes_are_the_layers_in_execution_order(graph: ChannelGraph) -> None:
    names = ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "pool", "fc"]
    kinds = ["conv", "bn", "conv", "bn", "conv", "bn", "pool", "fc"]
    assert [(node.name, node.kind) for node in graph.nodes] == list(zip(names, kinds, strict=True))
    assert [node.channels for node in graph.nodes] == [4, 4, 4, 4, 3, 3, 3, 10]


def test_edges_follow_the_data_and_the_add_belongs_to_the_main_branch(graph: ChannelGraph) -> None:
    adjacency = torch.zeros(8, 8, dtype=torch.int)
    adjacency[graph.edge_index[0], graph.edge_index[1]] = 1
    assert adjacency.tolist() == [
        [0, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0, 0],  # bn1 -> conv2, and by the skip -> bn2
        [0, 0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]


def test_groups_and_their_weight_in_the_ratio(graph: ChannelGraph) -> None:
    assert graph.groups == (Group("conv1", 4, ("conv1", "conv2"), 8), Group("conv3", 3, ("conv3",), 3))
    assert graph.frozen == {"fc": "its channels are the network's output"}


def test_every_atom_has_an_owner(graph: ChannelGraph) -> None:
    assert graph.owner.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert ChannelGraph((), torch.zeros(2, 0), ()).owner.shape == (0,)


def test_features_are_plus_one_minus_one_and_padding(graph: ChannelGraph) -> None:
    keep = {"conv1": torch.tensor([True, False, True, True]), "conv3": torch.tensor([False, True, False])}
    stage, last, pad = [1, -1, 1, 1], [-1, 1, -1], [0, 0, 0, 0, 0, 0]
    expected = [[*stage, *pad]] * 4 + [[*last, 0, *pad]] * 3 + [[1] * 10]
    data = graph.to_pyg(keep)
    assert data.x.tolist() == expected
    assert data.x.dtype == torch.float32
    assert torch.equal(data.edge_index, graph.edge_index)


def test_many_masks_at_once_equal_one_at_a_time(graph: ChannelGraph) -> None:
    kept = torch.rand(16, graph.num_atoms, generator=torch.Generator().manual_seed(0)) < 0.5
    kept[:, [0, 4]] = True
    single = torch.stack([graph.to_pyg(graph.unflatten(row)).x for row in kept])
    assert torch.equal(graph.features(kept), single)


def test_flatten_and_unflatten_are_inverse(graph: ChannelGraph) -> None:
    kept = torch.tensor([True, False, True, True, False, True, False])
    assert torch.equal(graph.flatten(graph.unflatten(kept)), kept)
    assert bool(graph.flatten(graph.full()).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv9": torch.ones(4, dtype=torch.bool)}, r"keep names group 'conv9'.*\['conv1', 'conv3'\]"),
        (
            {"conv1": torch.ones(5, dtype=torch.bool)},
            r"must be a bool tensor of shape \(4,\), got torch.bool \(5,\)",
        ),
        ({"conv1": torch.ones(4)}, r"must be a bool tensor of shape \(4,\), got torch.float32"),
        ({"conv1": [True] * 4}, r"must be a bool tensor of shape \(4,\), got list"),
        ({"conv1": torch.zeros(4, dtype=torch.bool)}, r"keep\['conv1'\] keeps no channel"),
    ],
)
def test_a_wrong_keep_is_named(graph: ChannelGraph, change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graph.flatten({**graph.full(), **change})


def test_a_missing_group_is_named(graph: ChannelGraph) -> None:
    with pytest.raises(ValueError, match="keep has no mask for group 'conv3'"):
        graph.flatten({"conv1": torch.ones(4, dtype=torch.bool)})


def test_kept_counts_are_floors_in_integers() -> None:
    assert kept_counts(16).tolist() == [16, 14, 12, 11, 9, 8, 6, 4, 3, 1]
    assert kept_counts(10).tolist() == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]  # floating point gives 1 at rate 0.8 and 0 at 0.9
    assert kept_counts(3).tolist() == [3, 2, 2, 2, 1, 1, 1, 1, 1, 1]


def test_the_papers_networks_have_the_papers_groups() -> None:
    image = torch.zeros(1, 3, 32, 32)
    found = {
        name: len(graphprune.trace(graphprune.models.build(name), image).groups) for name in ("vgg16", "resnet18", "resnet56")
    }
    assert found == {"vgg16": 13, "resnet18": 12, "resnet56": 30}


def test_shortcut_convolutions_count_in_the_ratio() -> None:
    graph = graphprune.trace(graphprune.models.build("resnet8", in_channels=1), torch.zeros(1, 1, 8, 8))
    assert {group.name: group.width for group in graph.groups} == {
        "conv1": 32,
        "layer1.0.conv1": 16,
        "layer2.0.conv1": 32,
        "layer2.0.conv2": 64,
        "layer3.0.conv1": 64,
        "layer3.0.conv2": 128,
    }


def test_the_graph_is_acyclic_and_the_fingerprint_stable() -> None:
    import networkx

    for name, image in (("resnet20a", torch.zeros(1, 3, 32, 32)), ("vgg16", torch.zeros(1, 3, 32, 32))):
        first, second = (graphprune.trace(graphprune.models.build(name), image) for _ in range(2))
        assert networkx.is_directed_acyclic_graph(networkx.DiGraph(first.edge_index.T.tolist()))
        assert first.fingerprint() == second.fingerprint()
    assert graphprune.trace(graphprune.models.build("resnet8"), image).fingerprint() != first.fingerprint()


def test_a_hidden_linear_layer_shows_its_mask_and_the_classifier_all_ones() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    graph = graphprune.trace(model, torch.zeros(1, 1, 2, 2))
    assert graph.to_pyg({"1": torch.tensor([True, False, True])}).x.tolist() == [[1, -1, 1], [1, 1, 1]]


def test_a_hand_made_graph_works_without_a_network() -> None:
    nodes = (Node("a", "conv", 2, (0, 1)), Node("b", "fc", 3, (-1, -1, -1)))
    graph = ChannelGraph(nodes, torch.tensor([[0], [1]]), (Group("a", 2, ("a",), 2),))
    assert graph.features(torch.tensor([[True, False]])).tolist() == [[[1, -1, 0], [1, 1, 1]]]


class ReadBeforeAndAfter(nn.Module):
    """c reads a's output before b is added to it: the addition must not lead back."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self.a(x)
        q = self.c(p)
        return self.fc((p + self.b(x) + q).mean((2, 3)))


def test_merged_additions_close_no_circle() -> None:
    graph = graphprune.trace(ReadBeforeAndAfter(), torch.zeros(1, 3, 4, 4))
    assert [node.name for node in graph.nodes] == ["a", "c", "b", "mean", "fc"]
    assert graph.edge_index.T.tolist() == [[0, 1], [1, 3], [2, 0], [3, 4]]


def test_kept_counts_of_any_rates_are_exact() -> None:
    assert kept_counts(7, (0, Fraction(1, 3), 0.75)).tolist() == [7, 4, 1]
    assert kept_counts(1000, (0.001, 0.999)).tolist() == [999, 1]  # (1 - 0.999) * 1000 is 0.99... in floating point
    assert kept_counts(2, (0.9,)).tolist() == [1]


def test_a_graph_prints_on_a_line_and_has_a_table():
    graph = graphprune.trace(graphprune.models.build("torchvision:mobilenet_v3_small"), torch.zeros(1, 3, 224, 224))
    text = repr(graph)
    assert text.startswith("ChannelGraph(MobileNetV3: ")
    assert text.endswith("frozen layers: 1)")
    assert len(text) < 200
    table = graph.summary()
    assert table["group"].tolist()[: len(graph.groups)] == [group.name for group in graph.groups]
    assert table["channels"].sum() == graph.num_atoms + 10
    assert table["share"].sum() == pytest.approx(1)
    assert table["frozen"].tolist()[-1] == graph.frozen["classifier.3"]
    assert graph._repr_html_().count("<tr") == len(table) + 1
