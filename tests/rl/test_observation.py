"""A network seen as a graph over its channels: what the observation does not depend on, and what it refuses."""

import copy

import pytest
import torch
from observed import by_hand, edges, noise, seen, unsettled
from torch import nn

from graphprune import models, trace
from graphprune.rl.observation import NAMES, observe


def test_every_feature_is_in_the_table():
    rows = [line.split("|")[1] for line in str(observe.__doc__).splitlines() if line.strip().startswith("|")]
    assert [name.strip() for row in rows[2:] for name in row.split(",")] == list(NAMES)


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


def test_a_layer_of_weights_twice_as_large_looks_the_same(digits):
    net = models.seeded("resnet8", 0, in_channels=1)
    graph = trace(net, torch.zeros(1, 1, 8, 8))
    one = observe(net, graph, digits)
    net.layer1[0].conv1.weight.data *= 2  # the only producer of its group
    other = observe(net, graph, digits)
    own = graph.slices["layer1.0.conv1"]
    for found in (one, other):
        found.x[:, NAMES.index("taylor")] = 0  # it reads the running statistics, which are of the old weights
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
