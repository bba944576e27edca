"""Which channels weights join, and how strongly: by hand, and by a loop over all slices."""

from collections import defaultdict
from math import log

import pytest
import torch
from observed import by_hand, edges, noise, seen
from torch import nn

from graphprune import models, trace
from graphprune.rl.observation import observe


def test_the_edges_by_hand():
    # Nodes: 0, 1 first channels, 2, 3 second, 4 input, 5 classes. Into 2: slices 3 and 4, root mean square 12.5^.5.
    # The slice from 0 into 3 is 0: no edge. The classes read 2 by four weights of 1, and 3 by 0, 2, 2, 2: squares 4 and 12.
    found = edges(seen(by_hand(), (1, 1, 2)))
    expected = {
        (4, 0): 0,
        (4, 1): 0,
        (1, 2): log(4 / 12.5**0.5),
        (0, 2): log(3 / 12.5**0.5),
        (1, 3): 0,
        (3, 5): log(12 / 8) / 2,
        (2, 5): log(4 / 8) / 2,
    }
    assert list(found) == list(expected)  # by target, the strongest first
    assert found == pytest.approx(expected, abs=1e-6)


def test_only_the_strongest_edges_into_a_node_stay():
    everything, one = (edges(seen(by_hand(), (1, 1, 2), strongest=strongest)) for strongest in (None, 1))
    assert list(one) == [(4, 0), (4, 1), (1, 2), (1, 3), (3, 5)]
    assert all(everything[pair] == value for pair, value in one.items())  # relative to all slices, not to those that stay
    assert len(everything) == 7


READS = {  # ResNet-8: which layer's channels each layer reads
    "conv1": None,
    "layer1.0.conv1": "conv1",
    "layer1.0.conv2": "layer1.0.conv1",
    "layer2.0.conv1": "layer1.0.conv2",
    "layer2.0.conv2": "layer2.0.conv1",
    "layer2.0.shortcut.0": "layer1.0.conv2",
    "layer3.0.conv1": "layer2.0.conv2",
    "layer3.0.conv2": "layer3.0.conv1",
    "layer3.0.shortcut.0": "layer2.0.conv2",
    "linear": "layer3.0.conv2",
}


@pytest.mark.parametrize("strongest", [1, 5, None])
def test_the_edges_are_those_of_a_loop_over_all_slices(resnet8, digits, strongest):
    model = models.seeded("resnet8", 0, in_channels=1)
    atoms = {node.name: node.atoms for node in resnet8.nodes}
    entry, classes = resnet8.num_atoms, resnet8.num_atoms + 1
    squares: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for name, reads in READS.items():
        weight = model.get_parameter(f"{name}.weight").detach()
        norms = weight.square().reshape(*weight.shape[:2], -1).sum(2).tolist()
        for target, row in zip(atoms[name], norms, strict=True):
            for source, value in zip(atoms[reads] if reads else [-1], row, strict=True):
                squares[classes if target < 0 else target][entry if source < 0 else source] += value
    expected = {}
    for target, row in squares.items():
        mean = sum(row.values()) / len(row)
        for source in sorted(row, key=row.__getitem__, reverse=True)[:strongest]:
            expected[source, target] = max(log(row[source] / mean) / 2, -4)
    assert edges(observe(model, resnet8, digits, strongest=strongest, images=8)) == pytest.approx(expected, abs=1e-4)


def test_a_residual_stage_that_reads_itself_has_edges_to_itself(tiny, digits):
    found = edges(observe(models.tiny_cnn(), tiny, digits, strongest=None, images=8))
    assert {(s, t) for s, t in found if t < 4} == {(s, t) for s in (0, 1, 2, 3, 7) for t in range(4)}  # 7: the input


class Twice(nn.Module):
    """Two layers join the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.fc = (
            nn.Conv2d(1, 2, 1),
            nn.Conv2d(2, 2, 1),
            nn.Conv2d(2, 2, 3, padding=1),
            nn.Linear(2, 2),
        )

    def forward(self, x):
        x = self.stem(x)
        return self.fc((self.a(x) + self.b(x)).mean((2, 3)))


def test_layers_that_join_the_same_channels_add_up_in_squares():
    net = Twice()
    squares = sum(layer.weight.detach().square().sum((2, 3)) for layer in (net.a, net.b))
    relative = (squares / squares.mean(1, keepdim=True)).log() / 2
    found = edges(seen(net, (1, 4, 4)))
    into = {(source, target - 2): value for (source, target), value in found.items() if 2 <= target < 4}
    assert into == pytest.approx({(s, t): relative[t, s].item() for s in range(2) for t in range(2)}, abs=1e-5)


def test_a_depthwise_convolution_is_no_edge():
    net = nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 5, stride=2, groups=3), nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2, 2)
    )
    found = seen(net, (1, 5, 5))
    assert set(edges(found)) == {
        *((5, target) for target in range(3)),
        *((source, target) for source in range(3) for target in (3, 4)),
        *((source, 6) for source in (3, 4)),
    }
    assert found.x[0, 6:8].tolist() == pytest.approx([log(5) / 2, log(2) / 2])  # it does produce the channels


def test_a_transposed_convolution_reads_its_first_dimension():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 1),
        nn.ConvTranspose2d(2, 3, 2, stride=2, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 2),
    )
    net[1].weight.data = torch.arange(6.0).view(2, 3, 1, 1).expand(2, 3, 2, 2).clone()  # 0 1 2 / 3 4 5: slices twice that
    found = seen(net, (1, 4, 4))
    into = {pair: value for pair, value in edges(found).items() if 2 <= pair[1] < 5}
    rms = [(9 / 1) ** 0.5, (17 / 2) ** 0.5, (29 / 2) ** 0.5]  # the slice of zeros does not count
    expected = {(1, 2): 0, (1, 3): log(4 / rms[1]), (0, 3): log(1 / rms[1]), (1, 4): log(5 / rms[2]), (0, 4): log(2 / rms[2])}
    assert into == pytest.approx(expected, abs=1e-6)
    assert found.x[2, 7].item() == pytest.approx(-log(2))


def test_a_grouped_convolution_joins_channels_of_the_same_group():
    # 4 -> 6 channels in 2 groups: atoms {0, 2}, {1, 3} read, {0, 3}, {1, 4}, {2, 5} written.
    net = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.Conv2d(4, 6, 3, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
    )
    graph = trace(net, torch.zeros(1, 1, 4, 4))
    assert [group.channels for group in graph.groups] == [2, 3]
    squares = net[1].weight.detach().square().sum((2, 3)).view(2, 3, 2).sum(0)  # groups add up: (3, 2)
    relative = (squares / squares.mean(1, keepdim=True)).log() / 2
    found = edges(observe(net, graph, noise(4, 1, 4, 4)))
    into = {(source, target - 2): value for (source, target), value in found.items() if 2 <= target < 5}
    assert into == pytest.approx({(s, t): relative[t, s].item() for s in range(2) for t in range(3)}, abs=1e-5)


def test_an_option_a_shortcut_copies_by_a_weight_of_one():
    net = models.seeded("resnet8a", 0)
    graph = trace(net, torch.zeros(1, 3, 8, 8))
    atoms = {node.name: node.atoms for node in graph.nodes}
    index = net.layer2[0].shortcut.index
    found = seen(net, (3, 8, 8), strongest=None)
    copied = {(atoms["conv1"][old], atoms["layer2.0.conv2"][new]) for new, old in enumerate(index.tolist()) if old >= 0}
    assert len(copied) == 16
    for source, target in copied:
        row = atoms["layer2.0.conv2"].index(target)
        slices = net.layer2[0].conv2.weight[row].detach().square().sum((1, 2))
        rms = ((slices.sum() + 1) / (len(slices) + 1)).sqrt()
        assert edges(found)[source, target] == pytest.approx(-rms.log().item(), abs=1e-5)
    read = {pair for pair in edges(found) if pair[0] in set(atoms["conv1"]) and pair[1] in set(atoms["layer2.0.conv2"])}
    assert read == copied
