"""Layers scored one by one: convex programs, solved to their optimum."""

import pytest
import torch
from tiny_programs import conv, fc, images
from torch import nn

from graphprune import models, neurons
from graphprune.neurons import bounds, replay
from graphprune.neurons.decoupled import solve_block

Y = torch.tensor([0, 1])


def test_a_block_of_scores_one_has_the_layers_features():
    net, x = conv(0, nn.AvgPool2d(2)), images(0, 2, 1, 5, 5)
    first, second = neurons.blocks(net, x, images(1, 20, 1, 5, 5), torch.arange(20) % 2)
    relu = net.double()[:3](x.double())
    net.float()
    assert torch.allclose(first.features, nn.functional.adaptive_avg_pool2d(relu, 2).flatten(2))
    assert (first.layer, second.layer, second.features.shape) == ("0", "4", (2, 3, 1))
    assert 0.5 <= second.accuracy <= 1


def test_heads_tell_classes_apart_that_can_be_told_apart():
    x = torch.cat([torch.rand(30, 2), torch.rand(30, 2) - 2])
    net = fc(0, 2, 8, 2)
    block = neurons.blocks(net, x[:2], x, torch.arange(60) // 30)[0]
    assert block.accuracy == 1.0


def test_each_program_is_convex_and_solved():
    net, x = conv(3, nn.MaxPool2d(2)), images(3, 2, 1, 5, 5)
    found = neurons.decoupled(net, x, Y, images(4, 40, 1, 5, 5), torch.arange(40) % 2)
    assert found.status == "optimal"
    assert found.sizes["binaries"] == 0
    assert -1e-6 <= found.gap <= 2 * 2e-3
    assert {name: len(part) for name, part in found.items()} == {"0": 2, "4": 3}


def test_the_optimum_of_a_block_is_below_all_random_scores():
    x = images(5, 4, 3)
    block = neurons.blocks(fc(5, 3, 5, 2), x, images(6, 40, 3), torch.arange(40) % 2)[0]
    labels = torch.arange(4) % 2
    found, _ = solve_block(block, labels, 5.0, 10.0)
    chain = block.chain()
    limits = bounds.propagate(chain, block.features, 0.0, "exact")
    tried = torch.rand(500, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = [replay.objective(chain, limits, block.features, labels, [s], 5.0).item() for s in tried]
    assert found.objective <= min(values) + 1e-3
    assert found.bound <= min(values)


def test_blocks_in_parallel_are_the_same():
    net, x = fc(7, 3, 4, 4, 2), images(7, 2, 3)
    heads = images(8, 30, 3), torch.arange(30) % 2
    one, two = (neurons.decoupled(net, x, Y, *heads, n_jobs=jobs) for jobs in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_vgg_is_in_reach():
    net = models.seeded("vgg16", 0, in_channels=1)
    found = neurons.blocks(net, images(0, 2, 1, 8, 8), images(1, 4, 1, 8, 8), torch.arange(4) % 2)
    assert len(found) == 13
    assert found[0].features.shape == (2, 64, 4)


def test_what_cannot_be_decoupled_is_refused():
    late = nn.Sequential(nn.Conv2d(1, 2, 2), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match="layer '0' has no ReLU right after it"):
        neurons.decoupled(late, images(0, 2, 1, 5, 5), Y, images(0, 4, 1, 5, 5), torch.arange(4) % 2)
    with pytest.raises(ValueError, match="n_jobs=0"):
        neurons.decoupled(fc(0, 2, 3, 2), images(0, 2, 2), Y, images(0, 4, 2), torch.arange(4) % 2, n_jobs=0)
    with pytest.raises(ValueError, match="side=0"):
        neurons.blocks(fc(0, 2, 3, 2), images(0, 2, 2), images(0, 4, 2), torch.arange(4) % 2, side=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": Y[:1]}, r"^labels: torch.int64 \(1,\); must be whole numbers of shape \(2,\)"),
        ({"images": torch.full((2, 2), torch.nan)}, r"^images of shape \(2, 2\): there must be one or more, of finite"),
        ({"head_labels": torch.arange(3)}, r"head_labels: torch.int64 \(3,\); must be whole numbers of shape \(4,\)"),
        (
            {"head_images": torch.full((4, 2), torch.inf)},
            r"head_images of shape \(4, 2\): there must be one or more, of finite",
        ),
        ({"head_labels": torch.zeros(4).long()}, "head_labels: no head image is of class 1, which labels has"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_named(change, message):
    given = {"images": images(0, 2, 2), "labels": Y, "head_images": images(0, 4, 2), "head_labels": torch.arange(4) % 2}
    with pytest.raises(ValueError, match=message):
        neurons.decoupled(fc(0, 2, 3, 2), **(given | change))


def test_weights_that_are_not_finite_are_told_before_a_program_is_made():
    net = fc(0, 2, 3, 2)
    net[0].bias.data[0] = torch.inf
    with pytest.raises(ValueError, match="model: the outputs of layer '0' are not finite numbers"):
        neurons.decoupled(net, images(0, 2, 2), Y, images(0, 4, 2), torch.arange(4) % 2)
