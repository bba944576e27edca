"""Figures: the same file for the same figure, and a network drawn so that every layer and every edge can be read."""

from collections import OrderedDict

import matplotlib
import pytest
import torch
from torch import nn

from graphprune import figures
from graphprune.figures import draw_graph
from graphprune.graph.groups import trace

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle, RegularPolygon


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


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
        "white: 1 group of one layer",
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


class Branches(nn.Module):
    """Convolutions `a` to `c` of 2 channels each, concatenated and normalised, and read by `d`."""

    def __init__(self, count):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(1, 2, 3, padding=1) for _ in range(count))
        self.bn, self.d = nn.BatchNorm2d(2 * count), nn.Conv2d(2 * count, 3, 1)

    def forward(self, x):
        return self.d(self.bn(torch.cat([conv(x) for conv in self.convs], 1)))


@pytest.mark.parametrize(("count", "numbers"), [(1, ["0"]), (3, ["0", "1", "2"]), (5, ["5×"])])
def test_a_layer_of_several_groups_has_a_stripe_for_each(count, numbers):
    axes = draw_graph(trace(Branches(count), torch.zeros(1, 1, 4, 4))).axes[0]
    (bn,) = [patch for patch in axes.patches if isinstance(patch, Circle)]
    left, right = bn.center[0] - bn.radius, bn.center[0] + bn.radius
    inside = [text for text in axes.texts if left < text.get_position()[0] < right and text.get_zorder() > 4]
    there = [text for text in inside if abs(text.get_position()[1] - bn.center[1]) < bn.radius]
    assert [text.get_text() for text in there] == numbers
    stripes = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_clip_path() is not None]
    stripes = [stripe for stripe in stripes if stripe.get_zorder() == 3]
    assert len(stripes) == (count if count > 1 else 0)
    assert all(stripe.get_height() == pytest.approx(2 * bn.radius / count) for stripe in stripes)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert any(text.startswith("stripes: ") for text in legend) == (count > 1)


def test_a_group_of_one_layer_is_white_unless_it_is_a_stripe():
    concatenated = draw_graph(trace(Branches(2), torch.zeros(1, 1, 4, 4)))
    legend = [text.get_text() for text in concatenated.axes[0].get_legend().get_texts()]
    assert "pale: 2 groups of one layer, read beside others" in legend
    alone = draw_graph(trace(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), torch.zeros(1, 1, 4, 4))).axes[0]
    boxes = [patch for patch in alone.patches if isinstance(patch, Rectangle)]
    assert [matplotlib.colors.to_hex(box.get_facecolor()) for box in boxes] == [figures.FREE]


def test_channels_stand_above_a_layer_where_their_number_changes(tiny):
    axes = draw_graph(tiny).axes[0]
    assert [text.get_text() for text in axes.texts if text.get_text().endswith("ch")] == ["4 ch", "3 ch", "10 ch"]
    places = {text.get_text(): round(text.get_position()[0]) for text in axes.texts if text.get_text().endswith("ch")}
    assert places == {"4 ch": 0, "3 ch": 4, "10 ch": 7}


def test_the_legend_tells_choices_from_channels():
    class Halves(nn.Module):
        """Two halves of four channels are added up: a choice takes one channel of each half."""

        def __init__(self):
            super().__init__()
            self.conv, self.out = nn.Conv2d(1, 4, 3), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            one, two = self.conv(x).chunk(2, 1)
            return self.out(one + two)

    graph = trace(Halves(), torch.zeros(1, 1, 4, 4))
    assert [figures._choices(group) for group in graph.groups] == ["2 choices × 2 channels"]


@pytest.mark.parametrize(
    ("colour", "ink"), [("#de8f05", "black"), ("#0173b2", "white"), ("#ffffff", "black"), ("#000000", "white")]
)
def test_digits_have_the_colour_of_more_contrast(colour, ink):
    assert figures._ink(colour) == ink


def test_names_leave_out_what_the_left_neighbour_says(resnet8):
    axes = draw_graph(resnet8, names=True).axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("layer1.0.\nconv1") == 1
    assert "layer2.0.\nshortcut.0" in texts
    assert {"bn1", "shortcut.1", "linear"} <= set(texts)  # of one block, and of none


def test_names_of_parallel_layers_leave_out_what_the_one_above_says():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.out = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            return self.out(self.q(x) + self.k(x))

    graph = trace(
        nn.Sequential(OrderedDict(up=nn.Linear(4, 4), attention=Attention(), head=nn.Linear(4, 2))), torch.zeros(1, 4)
    )
    texts = [text.get_text() for text in draw_graph(graph, names=True).axes[0].texts]
    assert texts.count("q") == 1
    assert "attention.k" in texts


def test_no_name_touches_the_next(resnet8):
    axes = draw_graph(resnet8, names=True).axes[0]
    axes.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts if not text.get_text().isdigit()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_legend_ends_before_its_colours_come_again():
    blocks = [nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1, groups=2)) for _ in range(11)]
    graph = trace(nn.Sequential(*blocks, nn.Conv2d(2, 1, 1)), torch.zeros(1, 2, 4, 4))
    legend = [text.get_text() for text in draw_graph(graph).axes[0].get_legend().get_texts()]
    assert sum(text.endswith("shared by 2 layers") for text in legend) == figures.LISTED == 9
    assert "and 2 more: colours come again, numbers do not" in legend


def test_equal_figures_are_equal_files(tiny, tmp_path):
    figures.style()
    for name in ("a", "b"):
        figures.save(draw_graph(tiny), tmp_path / "new" / f"{name}.png")
    content = (tmp_path / "new" / "a.png").read_bytes()
    assert content == (tmp_path / "new" / "b.png").read_bytes()
    assert content[:4] == b"\x89PNG"
    assert b"Software" not in content
