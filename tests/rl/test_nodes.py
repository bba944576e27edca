"""What nodes bear: each feature against its definition, worked out by hand or by other means."""

from math import log, log10

import pytest
import torch
from observed import by_hand, dataset, noise, seen, unsettled
from torch import nn

from graphprune import cost, importance, models, prune, trace
from graphprune.rl.observation import NAMES, observe
from graphprune.runs import runtime


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


def test_a_network_without_batch_normalisation_has_zeros_there():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2, 2))
    x = seen(net, (1, 5, 5)).x
    assert x[:, 2:4].abs().max() == 0
    assert x[:5, 4].abs().min() > 0
