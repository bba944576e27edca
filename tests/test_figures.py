"""Figures: the same file for the same figure, and a network drawn so that every layer and every edge can be read."""

import matplotlib
import pytest
import torch
from torch import nn

from graphprune import figures, models
from graphprune.figures import Place, draw_graph, layout
from graphprune.graph import trace

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle, RegularPolygon


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def resnet8():
    return trace(models.build("resnet8", in_channels=1), torch.zeros(1, 1, 8, 8))


@pytest.fixture(scope="module")
def tiny():
    return trace(models.tiny_cnn(), torch.zeros(1, 1, 8, 8))


def test_a_chain_is_one_row(tiny):
    assert layout(tiny) == [Place(0, column, 0) for column in range(8)]


def test_a_row_ends_at_the_margin(tiny):
    assert [(place.row, place.column) for place in layout(tiny, columns=3)] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1),
    ]  # fmt: skip


def test_a_row_begins_where_a_resnet_grows_wider_and_shortcuts_have_their_own_lane(resnet8):
    places = dict(zip([node.name for node in resnet8.nodes], layout(resnet8), strict=True))
    assert places["conv1"] == Place(0, 0, 0)
    assert places["layer1.0.bn2"] == Place(0, 5, 0)
    assert places["layer2.0.conv1"] == Place(1, 0, 0)
    assert places["layer2.0.shortcut.0"] == Place(1, 0, 1)
    assert places["layer2.0.shortcut.1"] == Place(1, 1, 1)
    assert places["layer3.0.conv1"] == Place(2, 0, 0)
    assert places["linear"] == Place(2, 5, 0)


@pytest.mark.parametrize("columns", [2, 5, 20])
def test_no_two_layers_lie_on_each_other(resnet8, columns):
    points = figures.positions(layout(resnet8, columns))
    assert len(set(points)) == len(resnet8.nodes)
    assert all(abs(x - u) >= 1 or abs(y - v) >= 1 for x, y in points for u, v in points if (x, y) != (u, v))


@pytest.mark.parametrize("columns", [1, 0, 2.5])
def test_a_row_needs_two_columns(tiny, columns):
    with pytest.raises(ValueError, match=f"columns={columns}: a row needs at least 2"):
        draw_graph(tiny, columns=columns)


def test_every_layer_and_every_edge_is_drawn_once(resnet8):
    axes = draw_graph(resnet8, "ResNet-8").axes[0]
    kinds = [type(patch) for patch in axes.patches]
    assert kinds.count(FancyArrowPatch) == resnet8.edge_index.shape[1] == 22
    assert kinds.count(Rectangle) == 9  # convolutions
    assert kinds.count(Circle) == 9  # batch normalisations
    assert kinds.count(RegularPolygon) == 2  # the pooling and the classifier
    assert axes.get_title(loc="left") == "ResNet-8"


def test_a_node_has_its_groups_number_and_colour(tiny):
    axes = draw_graph(tiny, names=True).axes[0]
    shapes = [patch for patch in axes.patches if not isinstance(patch, FancyArrowPatch)]
    colours = [matplotlib.colors.to_hex(patch.get_facecolor()) for patch in shapes]
    assert len(set(colours[:4])) == len(set(colours[4:7])) == 1  # conv1 and conv2 are coupled by the skip
    assert len(set(colours)) == 3
    assert colours[7] == figures.FROZEN
    texts = [text.get_text() for text in axes.texts]
    assert [text for text in texts if text.isdigit()] == list("0000111")
    assert {node.name for node in tiny.nodes} <= set(texts)


def test_the_legend_counts_layers_and_names_the_kinds(tiny):
    legend = draw_graph(tiny).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "group 0: 4 channels, shared by 2 layers",
        "pale: 1 group of one layer",
        "grey: never pruned",
        "convolution",
        "batch normalisation",
        "pooling",
        "fully connected",
    ]


def test_a_network_without_groups_is_grey():
    graph = trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 1, 2, 2))
    axes = draw_graph(graph).axes[0]
    assert [matplotlib.colors.to_hex(patch.get_facecolor()) for patch in axes.patches] == [figures.FROZEN]


class ReadTwice(nn.Module):
    """conv `a` is read before and after an addition, which the graph merges into `a`: an edge goes back to it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.c = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        first = self.a(x)
        return first + self.b(x) + self.c(first)


def test_edges_that_go_back_are_drawn_too():
    graph = trace(ReadTwice(), torch.zeros(1, 1, 8, 8))
    axes = draw_graph(graph).axes[0]
    assert len(set(layout(graph))) == 3
    assert sum(isinstance(patch, FancyArrowPatch) for patch in axes.patches) == graph.edge_index.shape[1]


def test_equal_figures_are_equal_files(tiny, tmp_path):
    figures.style()
    for name in ("a", "b"):
        figures.save(draw_graph(tiny), tmp_path / "new" / f"{name}.png")
    content = (tmp_path / "new" / "a.png").read_bytes()
    assert content == (tmp_path / "new" / "b.png").read_bytes()
    assert content[:4] == b"\x89PNG"
    assert b"Software" not in content
