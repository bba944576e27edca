"""The policy: attention against PyG's, draws against independent bits given the budget, by enumeration."""

import itertools
from dataclasses import replace

import pytest
import torch
from tiny_world import by_hand
from torch_geometric.nn import GATv2Conv

from graphprune.rl import world
from graphprune.rl.policy import Attention, Policy, Settings, draw, log_chances

SMALL = Settings(evaluations=13, episodes=4, hidden=8)


def generator():
    return torch.Generator().manual_seed(0)


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"episodes": 1}, "episodes=1: must be at least 2"),
        ({"pairs": 0}, "pairs=0: must be at least 1"),
        ({"layers": -1}, "layers=-1: must be at least 0"),
        ({"lr": 0.0}, r"lr=0\.0: must be above 0"),
        ({"rate": 1.5}, r"rate=1\.5: must be above 0 and at most 1"),
        ({"entropy": -1.0}, r"entropy=-1\.0: must be at least 0"),
        ({"heads": 3}, "hidden=32: must be a multiple of heads=3"),
        ({"reward": "plain"}, "reward='plain': must be 'self' or 'standard'"),
        ({"evaluations": 15}, "evaluations=15: must be at least episodes=16"),
    ],
)
def test_a_setting_out_of_its_range_is_named(setting, message):
    with pytest.raises(ValueError, match=message):
        Settings(**setting)


# --- policy -----------------------------------------------------------------------------------------------------------


def test_attention_is_pyg_s_gatv2_over_all_pairs():
    layer = seeded(lambda: Attention(6, 3, heads=2)).double()
    theirs = GATv2Conv(6, 3, heads=2, edge_dim=3, add_self_loops=False).double()
    with torch.no_grad():
        # PyG sends lin_l(x_j) as the message; ours has a matrix of its own for it, so it is made the same here
        theirs.lin_l.weight.copy_(layer.sender.weight)
        theirs.lin_l.bias.zero_()
        theirs.bias.zero_()
        theirs.lin_r.weight.copy_(layer.receiver.weight)
        theirs.lin_r.bias.copy_(layer.receiver.bias)
        theirs.lin_edge.weight.copy_(layer.pair.weight)
        theirs.att.copy_(layer.attend[None])
        layer.message.weight.copy_(layer.sender.weight)
        layer.message.bias.zero_()
        layer.told.weight.zero_()  # GATv2's messages do not carry the edge
        layer.mix.weight.copy_(torch.eye(6))
        layer.mix.bias.zero_()
    h, pairs = torch.randn(1, 4, 6, generator=generator()).double(), torch.randn(1, 4, 4, 3, generator=generator()).double()
    edges = torch.tensor(list(itertools.product(range(4), range(4)))).T  # source, target
    attr = pairs[0][edges[1], edges[0]]
    right = h[0] + torch.relu(theirs(layer.norm(h[0]), edges, attr))
    torch.testing.assert_close(layer(h, pairs, torch.ones(1, 4, dtype=torch.bool))[0], right, atol=1e-10, rtol=1e-10)


def test_nodes_that_are_not_there_change_nothing(few):
    policy = seeded(lambda: Policy(few.x.shape[2], few.pairs.shape[3], SMALL))
    share = torch.full((4,), 0.5)
    more = torch.nn.functional.pad(few.x, (0, 0, 0, 3)), torch.nn.functional.pad(few.pairs, (0, 0, 0, 3, 0, 3))
    torch.testing.assert_close(policy(*more, share)[:, :6], policy(few.x, few.pairs, share)[:, :6])


@pytest.mark.parametrize(("setting", "sees"), [({}, True), ({"edges": False}, False), ({"graph": False}, False)])
def test_only_the_whole_policy_sees_weights_between_channels(few, setting, sees):
    policy = seeded(lambda: Policy(few.x.shape[2], few.pairs.shape[3], replace(SMALL, **setting)))
    share, other = torch.full((4,), 0.5), few.pairs.clone()
    other[:, 0, 4, 4] += 1
    same = torch.equal(policy(few.x, few.pairs, share), policy(few.x, other, share))
    assert same is not sees


def test_a_channel_s_place_among_the_nodes_does_not_matter(few):
    policy = seeded(lambda: Policy(few.x.shape[2], few.pairs.shape[3], SMALL))
    order, share = torch.randperm(few.x.shape[1], generator=generator()), torch.full((4,), 0.5)
    moved = policy(few.x[:, order], few.pairs[:, order][:, :, order], share)
    torch.testing.assert_close(moved, policy(few.x, few.pairs, share)[:, order], atol=1e-6, rtol=1e-5)


# --- drawing ----------------------------------------------------------------------------------------------------------


def test_chances_are_those_of_independent_bits_given_the_budget():
    here, scores = by_hand([0.0] * 16), torch.tensor([[0.5, -1.0, 2.0, 0.3]])
    allowed, keep = here.allowed(2), scores.sigmoid()[0]
    alone = (here.masks * keep + (1 - here.masks) * (1 - keep)).prod(1) * allowed[0]
    torch.testing.assert_close(log_chances(scores, here.masks, allowed).exp()[0], alone / alone.sum())


def test_draws_spend_the_budget_and_follow_the_scores(rules):
    scores = torch.tensor([3.0, 0.0, 0.0, -3.0, 0.0, 2.0, -2.0])
    masks = draw(rules.budget, scores, 600, generator(), slack=0.2)
    shares = rules.budget.shares(masks)
    assert shares.max() <= 0.5
    assert shares.min() > 0.3
    assert (rules.budget.counts(masks) > 0).all()
    share = masks.float().mean(0)
    assert share[0] > share[1:3].max() > share[3]
    assert share[5] > share[4] > share[6]


def test_draws_are_those_of_independent_bits_given_the_window(rules):
    scores, masks = torch.tensor([1.0, 0.0, -1.0, 0.5, 0.0, 1.0, -0.5]), world.all_masks(7).bool()
    shares = rules.budget.shares(masks)
    allowed = (shares <= 0.5) & (shares > 0.3) & (rules.budget.counts(masks) > 0).all(1)
    drawn = draw(rules.budget, scores, 6000, generator(), slack=0.2)
    index = (drawn * (1 << torch.arange(7))).sum(1).bincount(minlength=128)
    assert index[~allowed].sum() == 0
    # The shift is one number for all channels; it is found from the frequencies of two masks, and must explain all others.
    found = (index[allowed] / 6000).double().clamp(min=1e-4).log()
    sums, kept = masks[allowed].double() @ scores.double(), masks[allowed].sum(1).double()
    often = index[allowed] > 60
    rest = (found - sums)[often]
    line = torch.stack([kept[often], torch.ones(int(often.sum()), dtype=torch.float64)], 1)
    left = rest - line @ torch.linalg.lstsq(line, rest[:, None]).solution[:, 0]
    assert left.abs().max() < 0.5, "a log-frequency is a line in sum of scores, slope 1, and channels kept"


def test_a_budget_that_no_draw_meets_is_met_all_the_same(rules):
    masks = draw(rules.budget, torch.zeros(7), 5, generator(), slack=1e-9)
    assert (rules.budget.shares(masks) <= 0.5).all()
    assert len(masks) == 5
