"""Where layers are drawn: no two on each other, no line through a third, rows broken where few edges cross."""

from itertools import pairwise

import pytest
import torch
import torchvision
from torch import nn

from graphprune.coupling import trace
from graphprune.layout import RADIUS, Place, layout


@pytest.fixture(scope="module")
def zoo(resnet8):
    """Networks that join in different ways: additions, concatenations, four branches, a shuffle."""
    built = {
        "densenet": torchvision.models.DenseNet(4, (2, 2), 8, num_classes=3),
        "googlenet": torchvision.models.GoogLeNet(aux_logits=False, init_weights=False, num_classes=3),
        "shufflenet": torchvision.models.shufflenet_v2_x0_5(),
        "mobilenet": torchvision.models.mobilenet_v3_small(),
    }
    return {"resnet8": resnet8} | {name: trace(model, torch.zeros(1, 3, 64, 64)) for name, model in built.items()}


ZOO = ["resnet8", "densenet", "googlenet", "shufflenet", "mobilenet"]


def test_a_chain_is_one_row(tiny):
    assert layout(tiny).places == tuple(Place(0, column, 0) for column in range(8))


def test_a_row_ends_where_fewest_layers_are_read_beyond_it(tiny):
    """Three columns would end the first row between conv2 and bn2, where the skip crosses too: it ends one before."""
    assert [(place.row, place.column) for place in layout(tiny, columns=3).places] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2),
    ]  # fmt: skip


def test_a_row_begins_where_a_resnet_grows_wider_and_shortcuts_have_their_own_lane(resnet8):
    places = dict(zip([node.name for node in resnet8.nodes], layout(resnet8).places, strict=True))
    assert places["conv1"] == Place(0, 0, 0)
    assert places["layer1.0.bn2"] == Place(0, 5, 0)
    assert places["layer2.0.conv1"] == Place(1, 0, 0)
    assert places["layer2.0.shortcut.0"] == Place(1, 0, 1)
    assert places["layer2.0.shortcut.1"] == Place(1, 1, 1)
    assert places["layer3.0.conv1"] == Place(2, 0, 0)
    assert places["linear"] == Place(2, 5, 0)


@pytest.mark.parametrize("columns", [1, 0, 2.5])
def test_a_row_needs_two_columns(tiny, columns):
    with pytest.raises(ValueError, match=f"columns={columns}: a row needs at least 2"):
        layout(tiny, columns=columns)


@pytest.mark.parametrize("columns", [2, 5, 20])
@pytest.mark.parametrize("name", ZOO)
def test_no_two_layers_lie_on_each_other(zoo, name, columns):
    points = layout(zoo[name], columns).points
    assert len(set(points)) == len(zoo[name].nodes)
    assert all(abs(x - u) > 0.99 or abs(y - v) > 0.99 for x, y in points for u, v in points if (x, y) != (u, v))
    assert max(x for x, _ in points) < columns


def sampled(line):
    """Points along straight lines, or along the parabola that an arc is."""
    share = torch.linspace(0, 1, 60, dtype=torch.float64)[:, None]
    corners = torch.tensor(line, dtype=torch.float64)
    legs = [(1 - share) * a + share * b for a, b in pairwise(corners)]
    return torch.cat(legs), (1 - share) * legs[0] + share * legs[-1]


@pytest.mark.parametrize("columns", [5, 20])
@pytest.mark.parametrize("name", ZOO)
def test_no_line_runs_through_a_third_layer(zoo, name, columns):
    graph = zoo[name]
    drawing = layout(graph, columns)
    for source, target in graph.edge_index.T.tolist():
        straight, parabola = sampled(drawing.route(source, target))
        line = parabola if drawing.is_arc(source, target) else straight
        others = [point for i, point in enumerate(drawing.points) if i not in (source, target)]
        assert torch.cdist(line, torch.tensor(others, dtype=torch.float64)).min() > RADIUS, (source, target)


@pytest.mark.parametrize("name", ZOO)
def test_text_under_a_layer_has_its_room(zoo, name):
    points = layout(zoo[name], below=0.8).points
    nearest = [min((y - v for u, v in points if u == x and v < y), default=9.0) for x, y in points]
    assert min(nearest) > 1.79


class ReadTwice(nn.Module):
    """conv `a` is read before and after an addition, which the graph merges into `a`: an edge goes back to it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.c = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        first = self.a(x)
        return first + self.b(x) + self.c(first)


def test_edges_that_go_back_have_a_line_too():
    graph = trace(ReadTwice(), torch.zeros(1, 1, 8, 8))
    drawing = layout(graph)
    assert len(set(drawing.places)) == 3
    back = [edge for edge in graph.edge_index.T.tolist() if edge[0] > edge[1]]
    assert back
    assert all(len(drawing.route(*edge)) >= 2 for edge in back)
