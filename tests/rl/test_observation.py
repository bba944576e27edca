import copy
from collections import defaultdict
from math import log, log10

import pytest
import torch
from torch import nn

from graphprune import cost, data, importance, models, prune, trace
from graphprune.data import Dataset
from graphprune.rl import observation
from graphprune.rl.observation import NAMES, observe
from graphprune.runs import runtime
from graphprune.training.splits import Augment, TensorSplit


def dataset(images: torch.Tensor, mean: float = 0.0, std: float = 1 / 255) -> Dataset:
    """uint8 images, by default read as the numbers they are."""
    channels = images.shape[1]
    split = TensorSplit(
        (mean,) * channels, (std,) * channels, Augment(0, False), images.device, torch.zeros(len(images)), images
    )
    return Dataset("hand", split, split, split, 10, tuple(images.shape[1:]))


def noise(*shape: int) -> Dataset:
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return dataset(images, 0.5, 0.25)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("digits", device="cpu")


def unsettled(model: nn.Module) -> nn.Module:
    """Normalisations as training leaves them: no two channels alike."""
    torch.manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor, 0.3, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def by_hand() -> nn.Module:
    """Two channels, batch-normalised; two more without; a classifier that reads two places of each. 1x2 images."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False),
        nn.BatchNorm2d(2, eps=0),
        nn.ReLU(),
        nn.Conv2d(2, 2, 1, bias=False),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    net[0].weight.data = torch.tensor([3.0, 4.0]).view(2, 1, 1, 1)
    net[1].weight.data, net[1].bias.data = torch.tensor([1.0, -3.0]), torch.tensor([0.5, -1.0])
    net[3].weight.data = torch.tensor([[3.0, 4.0], [0.0, 2.0]]).view(2, 2, 1, 1)
    net[5].weight.data = torch.tensor([[1.0, 1.0, 0.0, 2.0], [1.0, 1.0, 2.0, 2.0]])
    return net


def seen(net: nn.Module, shape: tuple[int, ...], **options: int | None) -> observation.Observation:
    return observe(net, trace(net, torch.zeros(1, *shape)), noise(4, *shape), **options)


def edges(seen: observation.Observation) -> dict[tuple[int, int], float]:
    weights = seen.edge_attr[:, 2] == 0
    pairs = map(tuple, seen.edge_index.T[weights].tolist())
    return dict(zip(pairs, seen.edge_attr[weights, 0].tolist(), strict=True))


# nodes ----------------------------------------------------------------------------------------------------------------


def test_the_features_by_hand():
    # Images (1, 3). Channel 0 after BN: 3 x + .5 = 3.5, 9.5, mean 6.5; channel 1: -12 x - 1 < 0, so 0 and far below the mean.
    # Then 3 * 6.5 = 19.5 and 0 again. MACs: 2 places x (2 + 4) + 8 = 20; a first channel takes 2 x (1 + 2), a second 4 + 4.
    net = by_hand()
    x = observe(net, trace(net, torch.zeros(1, 1, 1, 2)), dataset(torch.tensor([[[[1, 3]]]], dtype=torch.uint8))).x
    expected = {
        "l1": [-1, 1, 1, -1],  # of two channels each is one standard deviation from their mean: 3 < 4 and 7 > 2
        "l2": [-1, 1, 1, -1],
        "gamma": [-1, 1, 0, 0],
        "beta": [1, -1, 0, 0],
        "activation": [1, -1, 1, -1],
        "depth": [0, 0, 0.5, 0.5],
        "kernel": [0, 0, 0, 0],
        "stride": [0, 0, 0, 0],
        "macs": [log(6 / 20 * 4)] * 2 + [log(8 / 20 * 4)] * 2,
        "size": [log10(2)] * 4,
        "is_input": [0, 0, 0, 0],
        "is_class": [0, 0, 0, 0],
        "reads": [-1, 1, -1, 1],  # layer 2 reads by norms 3 and 20^.5, the classes by 2 and 12^.5
        "taylor": [0, 0, 0, 0],  # see below
        "is_layer": [0, 0, 0, 0],
    }
    assert tuple(expected) == NAMES
    x[:, NAMES.index("taylor")] = 0  # both classes get 19.5: gradients cancel, and what is left is rounding
    torch.testing.assert_close(x[:4], torch.tensor(list(expected.values())).T, atol=1e-5, rtol=1e-5)
    assert x[4:6].tolist() == [[0.0] * 10 + [1.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 10 + [0.0, 1.0, 0.0, 0.0, 0.0]]
    layers = torch.zeros(2, 15)  # of the group what its channels have, nothing of a channel
    layers[:, 5:10], layers[:, 14] = x[[0, 2], 5:10], 1
    assert torch.equal(x[6:], layers)


def test_every_feature_is_in_the_table():
    rows = [line.split("|")[1] for line in str(observe.__doc__).splitlines() if line.strip().startswith("|")]
    assert [name.strip() for row in rows[2:] for name in row.split(",")] == list(NAMES)


def test_a_ratio_to_the_group_orders_its_channels_as_the_criterion_does(resnet8, digits):
    model = unsettled(models.seeded("resnet8", 0, in_channels=1))
    x = observe(model, resnet8, digits).x
    for column, scores in enumerate(
        (importance.l1(model, resnet8), importance.l2(model, resnet8), importance.bn_scale(model, resnet8))
    ):
        for name, span in resnet8.slices.items():
            assert x[span, column].argsort().tolist() == scores[name].argsort().tolist()


def test_depth_kernel_and_stride_are_means_over_the_producing_layers():
    # layer2: conv2 (3x3) and the shortcut (1x1, stride 2) make one group; they are numbers 4 and 5 of 0 .. 9.
    net = models.build("resnet8", in_channels=1)
    graph = trace(net, torch.zeros(1, 1, 8, 8))
    [group] = [group for group in graph.groups if "layer2.0.shortcut.0" in group.layers]
    assert group.layers == ("layer2.0.conv2", "layer2.0.shortcut.0")
    row = observe(net, graph, noise(4, 1, 8, 8)).x[graph.slices[group.name]][0, 5:8]
    torch.testing.assert_close(row, torch.tensor([4.5 / 9, log(3) / 2, log(2) / 2]))


def test_macs_are_those_that_a_network_without_the_channel_saves(tiny, digits):
    net = models.tiny_cnn()
    whole, x = cost(net, digits.example()).macs, observe(net, tiny, digits, images=8).x
    for atom in range(tiny.num_atoms):
        kept = torch.arange(tiny.num_atoms) != atom
        saved = whole - cost(prune(net, tiny, tiny.unflatten(kept)), digits.example()).macs
        assert x[atom, NAMES.index("macs")].item() == pytest.approx(log(saved / whole * tiny.num_atoms), abs=1e-5)


def test_the_activation_is_the_mean_of_the_positive_part_of_what_normalisation_makes(tiny, digits):
    net = unsettled(models.tiny_cnn()).eval()
    x = observe(net, tiny, digits, images=2000).x  # all there are
    images = torch.cat([batch for batch, _ in digits.train.batches(500)])
    with torch.no_grad():
        first = net.bn1(net.conv1(images))
        second = net.relu2(net.bn2(net.conv2(first.relu())) + first.relu())
        third = net.bn3(net.conv3(second))
        both = first.relu().mean((0, 2, 3)) + net.bn2(net.conv2(first.relu())).relu().mean((0, 2, 3))
        logs = [(mean / mean.mean()).log().clamp(-4, 4) for mean in (both, third.relu().mean((0, 2, 3)))]
        expected = [((log - log.mean()) / log.std(correction=0)).clamp(-4, 4) for log in logs]
    torch.testing.assert_close(x[:7, NAMES.index("activation")], torch.cat(expected), atol=1e-4, rtol=1e-4)


def test_taylor_is_output_times_gradient_of_the_predictions_own_loss(tiny, digits):
    net = unsettled(models.tiny_cnn()).eval()
    x = observe(net, tiny, digits, images=64).x
    seen = runtime.seed_generator(0, "observation")
    images = torch.cat([batch for batch, _ in digits.train.batches(16, shuffle=True, generator=seen, limit=64)])
    outputs = {}
    handles = [
        module.register_forward_hook(lambda module, _inputs, out: outputs.update({module: out}))
        for module in (net.bn1, net.bn2, net.bn3)
    ]
    logits = net(images)
    for handle in handles:
        handle.remove()
    loss = nn.functional.cross_entropy(logits, logits.argmax(1), reduction="sum")
    effects = [
        (out * gradient).sum((2, 3)).abs().sum(0)
        for out, gradient in zip(outputs.values(), torch.autograd.grad(loss, list(outputs.values())), strict=True)
    ]
    logs = [(effect / effect.mean()).log().clamp(-4, 4) for effect in (effects[0] + effects[1], effects[2])]
    expected = [((log - log.mean()) / log.std(correction=0)).clamp(-4, 4) for log in logs]
    torch.testing.assert_close(x[:7, NAMES.index("taylor")], torch.cat(expected), atol=1e-3, rtol=1e-3)


def test_pairs_are_the_edges_from_both_ends():
    found = seen(by_hand(), (1, 1, 2))
    pairs = found.pairs()
    edge = found.edge_index.T.tolist().index([0, 2])  # a slice of 3, where the root mean square is 12.5^.5
    assert pairs[2, 0, 1].item() == pytest.approx(3 / 12.5**0.5, abs=1e-5)
    assert pairs[2, 0, :3].tolist() == found.edge_attr[edge].tolist()
    assert pairs[2, 0, 3:].tolist() == [1, 0, 0, 0]
    assert pairs[0, 2, :4].tolist() == [0, 0, 0, 0]
    assert pairs[0, 2, 4:].tolist() == [*found.edge_attr[edge, :2].tolist(), 1]
    assert pairs[3, 0].tolist() == [0] * 7  # a slice of zeros
    assert pairs[6, 0].tolist() == [0, 0, 1, 1, 0, 0, 1]  # the first layer and its channel
    assert pairs[6, 2].tolist() == [0] * 7  # and a channel of the second


# edges ----------------------------------------------------------------------------------------------------------------


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


# what does not matter -------------------------------------------------------------------------------------------------


def test_a_layer_of_weights_twice_as_large_looks_the_same(digits):
    net = models.seeded("resnet8", 0, in_channels=1)
    graph = trace(net, torch.zeros(1, 1, 8, 8))
    one = observe(net, graph, digits)
    net.layer1[0].conv1.weight.data *= 2  # the only producer of its group
    other = observe(net, graph, digits)
    own = graph.slices["layer1.0.conv1"]
    for seen in (one, other):
        seen.x[:, NAMES.index("taylor")] = 0  # it reads the running statistics, which are of the old weights
    torch.testing.assert_close(other.x[own], one.x[own], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other.x[:, :4], one.x[:, :4], atol=1e-5, rtol=1e-5)
    assert torch.equal(other.edge_index, one.edge_index)
    torch.testing.assert_close(other.edge_attr, one.edge_attr, atol=1e-5, rtol=1e-5)


def test_channels_in_another_order_are_nodes_in_another_order(resnet8, digits):
    net = unsettled(models.seeded("resnet8", 0, in_channels=1))
    order = torch.cat([span.start + torch.randperm(span.stop - span.start) for span in resnet8.slices.values()])
    order = torch.cat([order, torch.tensor([resnet8.num_atoms, resnet8.num_atoms + 1])])
    other = copy.deepcopy(net)
    tensors = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    for site in resnet8.sites:
        if (site.atoms >= 0).all() and (site.atoms < resnet8.num_atoms).all():  # all of one group, in order
            tensor = tensors[site.tensor].data
            tensor.copy_(tensor.index_select(site.dim, order[site.atoms] - site.atoms[0]))
    one, permuted = observe(net, resnet8, digits), observe(other, resnet8, digits)
    torch.testing.assert_close(permuted.x[: len(order)], one.x[order], atol=1e-4, rtol=1e-4)
    assert not torch.equal(order, torch.arange(len(order)))
    expected, found = edges(one), edges(permuted)
    assert {(int(order[s]), int(order[t])): value for (s, t), value in found.items()} == pytest.approx(expected, abs=1e-4)


def test_a_network_without_batch_normalisation_has_zeros_there():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2, 2))
    x = seen(net, (1, 5, 5)).x
    assert x[:, 2:4].abs().max() == 0
    assert x[:5, 4].abs().min() > 0


def test_a_group_of_zeros_is_a_constant_group(tiny, digits):
    net = models.tiny_cnn()
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    found = observe(net, tiny, digits)
    assert found.x[:, :5].abs().max() == 0
    assert edges(found) == {}
    assert found.edge_index.shape == (2, 22)  # 3 layers and their 4 + 4 + 3 channels, both ways
    assert found.edge_attr.tolist() == [[0.0, 0.0, 1.0]] * 22


NETWORKS = [
    "mobilenet_v2",
    "densenet121",
    "googlenet",
    "shufflenet_v2_x0_5",
    "regnet_y_400mf",
    "convnext_tiny",
    "squeezenet1_1",
]


@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_is_finite_and_of_order_one(name):
    net = models.seeded(f"torchvision:{name}", 0)
    graph = trace(net, torch.zeros(1, 3, 64, 64))
    found = observe(net, graph, noise(2, 3, 64, 64))
    weights = found.edge_attr[:, 2] == 0
    nodes, (source, target) = graph.num_atoms + 2, found.edge_index[:, weights]
    assert found.x.shape == (nodes + sum(len(group.layers) for group in graph.groups), len(found.names))
    for values in (found.x, found.edge_attr):
        assert values.isfinite().all()
        assert values.abs().max() <= 4
    assert found.x.dtype == found.edge_attr.dtype == torch.float32
    assert target.bincount(minlength=nodes).max() <= 8
    assert target.unique().tolist() == [*range(graph.num_atoms), nodes - 1]  # every channel is written by a weight
    assert (source < nodes - 1).all()
    assert not ((source == nodes - 2) & (target == nodes - 1)).any()


def test_the_model_is_left_as_it_was(tiny, digits):
    net = unsettled(models.tiny_cnn()).train()
    net.bn2.eval()
    state, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    random = torch.get_rng_state()
    observe(net, tiny, digits)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks for module in net.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())


def test_a_seed_gives_the_same_bits(tiny, digits):
    net = unsettled(models.tiny_cnn())
    one, same, other = (observe(net, tiny, digits, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.edge_index, same.edge_index)
    assert torch.equal(one.edge_attr, same.edge_attr)
    assert (one.x != other.x).any(0).nonzero().flatten().tolist() == [
        NAMES.index("activation"),
        NAMES.index("taylor"),
    ]


def test_bad_arguments_are_named(tiny, digits):
    net = models.tiny_cnn()
    with pytest.raises(ValueError, match="strongest=0: must be at least 1 edge into a node; None keeps all"):
        observe(net, tiny, digits, strongest=0)
    with pytest.raises(ValueError, match="images=0: must be at least 1"):
        observe(net, tiny, digits, images=0)
    with pytest.raises(ValueError, match=r"model is not the network that was traced.*trace this model again"):
        observe(models.build("resnet8", in_channels=1), tiny, digits)
    with pytest.raises(ValueError, match=r"graph has no prunable group.*graph\.frozen says why"):
        observe(linear := nn.Linear(64, 10), trace(linear, torch.zeros(1, 64)), digits)
    net.conv3.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="model has l1 values that are not finite: train it again"):
        observe(net, tiny, digits)
