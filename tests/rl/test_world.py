"""The world: every mask's accuracy is that of the pruned network, and the optimum is the best of them."""

import pytest
import torch
from tiny_world import by_hand

import graphprune
from graphprune.rl import world
from graphprune.rl.families import FAMILIES, train_many, whole


@pytest.fixture(scope="module")
def small(digits):
    return world.make(FAMILIES, digits, 2, seed=0, width=3, steps=40)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tables_hold_what_pruned_networks_score(family, digits):
    [model], classes = train_many(family, digits, 1, seed=0, width=3, steps=40)
    graph = graphprune.trace(model, digits.example())
    images, labels = whole(digits.val)
    images, labels = images[classes[0][labels]], labels[classes[0][labels]]
    accuracy, loss = world.judge(model, images, labels)
    for index in (9, 10, 29, 54, 63):
        keep = world.all_masks(6)[index].bool()
        logits = graphprune.masked(model, graph, graph.unflatten(keep))(images).detach()
        assert accuracy[index].item() == pytest.approx((logits.argmax(1) == labels).float().mean().item(), abs=1e-6)
        found = torch.nn.functional.cross_entropy(logits, labels).item()
        assert loss[index].item() == pytest.approx(found, abs=1e-4)


def test_masks_are_numbered_by_their_bits():
    assert world.all_masks(3)[6].tolist() == [0, 1, 1]


def test_a_budget_of_channels_allows_so_many_in_living_groups():
    allowed = by_hand([0.0] * 16).allowed(2)[0]
    assert allowed.nonzero().flatten().tolist() == [0b0101, 0b0110, 0b1001, 0b1010]  # one of either group


def test_a_budget_of_macs_allows_what_nothing_can_be_added_to():
    # Channels cost .4, .3, .2, .1 and .7 may stay. Within it, with both groups alive: 0 and 2, 0 and 3, 0, 2 and 3, and the
    # same with 1, of which 1, 2 and 3 cost .6.
    allowed = by_hand([0.0] * 16).allowed(0.7, "macs")[0]
    assert allowed.nonzero().flatten().tolist() == [0b1101, 0b1110]


def test_regret_is_points_below_the_best_of_the_budget():
    scores = [0.0] * 16
    scores[0b0101], scores[0b0110], scores[0b1001], scores[0b1111] = 0.5, 0.75, 0.25, 1.0
    here = by_hand(scores)
    allowed = here.allowed(2)
    found = [here.regret(torch.tensor([index]), allowed).item() for index in (0b0101, 0b0110, 0b1001)]
    assert found == [25, 0, 50]


def test_the_shares_of_macs_are_those_of_pruned_networks(small, digits):
    for place, family in enumerate(FAMILIES):
        [model], _ = train_many(family, digits, 1, seed=0, width=3, steps=1)
        graph = graphprune.trace(model, digits.example())
        row = int((small.family == place).nonzero()[0])
        keep = torch.tensor([True, False, True, False, True, False])
        index = int((keep * (1 << torch.arange(6))).sum())
        pruned = graphprune.prune(model, graph, graph.unflatten(keep))
        share = graphprune.cost(pruned, digits.example()).macs / graphprune.cost(model, digits.example()).macs
        assert small.macs[row, index].item() == pytest.approx(share, abs=1e-6)


def test_a_world_is_found_again(digits, tmp_path, monkeypatch):
    one = world.make(["mlp"], digits, 1, seed=3, width=2, steps=2, folder=tmp_path)
    monkeypatch.setattr(world, "train_many", None)
    same = world.make(["mlp"], digits, 1, seed=3, width=2, steps=2, folder=tmp_path)
    assert torch.equal(one.accuracy, same.accuracy)
    assert one.x.equal(same.x)


def test_families_of_fewer_nodes_get_empty_ones(small):
    nodes = (small.x.abs().sum(2) > 0).sum(1).tolist()
    assert nodes == [10, 10, 10, 10, 11, 11]  # 6 channels, input, classes, 2 or 3 layers
    assert small.pairs[0, 10:].abs().sum() == small.pairs[0, :, 10:].abs().sum() == 0


def test_taking_networks_takes_all_of_them(small):
    some = small.take([4, 0])
    assert len(some) == 2
    assert torch.equal(some.loss, small.loss[[4, 0]])


def test_a_world_too_large_to_go_through_is_refused(digits):
    with pytest.raises(ValueError, match=r"width=9: must be 1 \.\. 8"):
        world.make(["mlp"], digits, 1, seed=0, width=9)
