"""Small networks: the masked forward is pruning, and training side by side is training."""

import pytest
import torch

import graphprune
from graphprune.rl.families import FAMILIES, Small, train_many, whole


@pytest.mark.parametrize("family", FAMILIES)
def test_hiding_channels_is_pruning_them(family, digits):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Small(family, (1, 8, 8), width=4).double().eval()
    graph = graphprune.trace(model.float(), digits.example())
    model = model.double()
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    keep = torch.tensor([True, False, True, True, False, True, False, True])
    small = graphprune.prune(model, graph, graph.unflatten(keep), check=False)
    torch.testing.assert_close(model(x, keep[:4].double(), keep[4:].double()), small(x), atol=1e-10, rtol=1e-10)
    assert [group.channels for group in graph.groups] == [4, 4]


def test_the_residual_family_couples_two_layers(digits):
    graph = graphprune.trace(Small("residual", (1, 8, 8)), digits.example())
    assert [group.layers for group in graph.groups] == [("first", "last"), ("middle",)]


@pytest.mark.parametrize("family", FAMILIES)
def test_trained_networks_know_their_own_classes(family, digits):
    models, classes = train_many(family, digits, 3, seed=0, steps=150)
    images, labels = whole(digits.val)
    for model, seen in zip(models, classes, strict=True):
        ours = seen[labels]
        with torch.no_grad():
            right = model(images[ours]).argmax(1) == labels[ours]
        assert 6 <= int(seen.sum()) <= 10
        assert right.float().mean() > 0.35, "chance is a sixth at most"
    assert not torch.equal(models[0].first.weight, models[1].first.weight)


def test_the_same_seed_gives_the_same_bits_and_another_others(digits):
    (one,), _ = train_many("mlp", digits, 1, seed=0, steps=3)
    (same,), _ = train_many("mlp", digits, 1, seed=0, steps=3)
    (other,), _ = train_many("mlp", digits, 1, seed=1, steps=3)
    assert torch.equal(one.middle.weight, same.middle.weight)
    assert not torch.equal(one.middle.weight, other.middle.weight)


def test_a_deeper_network_has_more_groups(digits):
    (deep,), _ = train_many("mlp", digits, 1, seed=0, steps=1, depth=4)
    assert [group.channels for group in graphprune.trace(deep, digits.example()).groups] == [7, 7, 7, 7]


def test_what_is_out_of_range_is_named(digits):
    with pytest.raises(ValueError, match="family='vit': must be one of mlp, conv, residual"):
        Small("vit", (1, 8, 8))
    with pytest.raises(ValueError, match="count"):
        train_many("mlp", digits, 0, seed=0)
