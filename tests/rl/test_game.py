"""The rules of the game: who decides what at which step, ratios and budgets by hand, and what a digest holds."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_game import QUICK, macs, weighted

from graphprune import models
from graphprune.rl.game import game


@pytest.fixture(scope="module")
def net():
    return weighted()


@pytest.fixture(scope="module")
def rules(net, tiny, digits):
    return game(net, tiny, digits, 0.4, **QUICK)


def test_neighbouring_groups_are_decided_together(resnet8, digits):
    net = models.seeded("resnet8", 0, in_channels=1)
    stages = game(net, resnet8, digits, 0.5, decisions=4, passes=2, **QUICK).stages
    sizes = [16, 16, 32, 32, 64, 64]
    assert stages.sum(1).tolist() == [16 + 16, 32 + 32, 64, 64] * 2
    assert stages[0].tolist() == [True] * 32 + [False] * (sum(sizes) - 32)
    assert bool((stages.sum(0) == 2).all())


def test_only_the_bits_of_the_current_group_matter(rules):
    keep, noise = torch.rand(20, 7) < 0.5, torch.rand(20, 7) < 0.5
    position = rules.start(20)
    for step in range(2):
        other = torch.where(rules.stages[step], keep, noise)
        assert torch.equal(rules.play(position, keep).kept, rules.play(position, other).kept)
        before = position.kept.clone()
        after = rules.play(position, keep)
        assert torch.equal(position.kept, before)
        assert torch.equal(after.kept[:, ~rules.stages[step]], before[:, ~rules.stages[step]])
        position = after


def test_ratios_by_hand(rules):
    assert rules.places.tolist() == pytest.approx([1 / 4, 3 / 4, 0, 2 / 4, 0, 2 / 3, 1 / 3])
    for ratios, kept in {
        (0.0, 0.0): [1, 1, 1, 1, 1, 1, 1],
        (0.5, 1 / 3): [0, 1, 0, 1, 0, 1, 1],
        (0.51, 0.01): [0, 1, 0, 0, 0, 1, 1],  # rounded up
        (1.0, 1.0): [0, 1, 0, 0, 0, 1, 0],  # never empty
        (1.7, -0.3): [0, 1, 0, 0, 1, 1, 1],  # a normal distribution has no ends
    }.items():
        for dtype in (torch.float32, torch.float64):
            assert rules.by_ratios(torch.tensor([ratios], dtype=dtype)).int().tolist() == [kept]


def settled(rules, kept):
    return rules.settle(torch.tensor([kept]).bool()).int().tolist()[0]


def test_what_is_too_much_is_dropped_and_what_room_is_left_is_filled(rules):
    assert macs(3, 1) > 0.4 > macs(2, 3)
    assert settled(rules, [1, 1, 1, 0, 1, 1, 1]) == [1, 1, 0, 0, 1, 1, 1]  # 3 and 3: the third, of the smallest norm, goes
    assert settled(rules, [1, 0, 0, 0, 0, 1, 0]) == [1, 1, 0, 0, 0, 1, 0]  # 1 and 1: the second, of the largest, comes back
    assert settled(rules, [1, 0, 0, 1, 0, 1, 0]) == [1, 0, 0, 1, 0, 1, 0]  # with one more it would be 3 and 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=7, max_size=7))
def test_settled_networks_stand_at_the_budget_and_respect_decisions(rules, kept):
    decided = rules.never_empty(torch.tensor([kept]))
    found = rules.settle(decided)[0]
    assert bool((rules.excess(found[None]) <= 0).all())
    assert bool((rules.budget.counts(found[None]) > 0).all())
    respected = not bool((found & ~decided[0]).any()) or not bool((decided[0] & ~found).any())
    assert respected
    rank = (rules.places + 10 * decided[0]).tolist()
    last = max((index for index in range(7) if not found[index]), key=lambda index: (rank[index], index))
    more = found.clone()
    more[last] = True
    assert float(rules.excess(more[None])) > 0  # the last that went had to go


def test_a_games_digest_changes_with_all_that_its_results_depend_on(net, tiny, digits, rules):
    assert game(net, tiny, digits, 0.4, **QUICK).digest == rules.digest
    changed = [{"of": "params"}, {"passes": 2}, {"decisions": 1}, {"images": 41}, {"calibration": 25}, {"seed": 1}]
    others = [game(net, tiny, digits, 0.4, **{**QUICK, **one}) for one in [*changed, {"strongest": 1}]]
    heavier = copy.deepcopy(net)
    with torch.no_grad():
        heavier.fc.bias.add_(1)
    others += [game(net, tiny, digits, 0.5, **QUICK), game(heavier, tiny, digits, 0.4, **QUICK)]
    assert len({rules.digest, *(one.digest for one in others)}) == 1 + len(others)


def test_a_walk_ends_with_everything_decided_and_the_next_begins_with_nothing(net, tiny, digits):
    rules, keep = game(net, tiny, digits, 0.4, passes=2, **QUICK), torch.ones(1, 7, dtype=torch.bool)
    position, seen = rules.start(1), []
    for _ in range(rules.steps):
        seen.append(rules.decided(position).int().tolist())
        position = rules.play(position, keep)
    none, first = [0] * 7, [1, 1, 1, 1, 0, 0, 0]
    assert seen == [none, first, none, first]
    assert rules.decided(position).all()


def test_an_importance_of_ones_own_stands_in_the_rules_and_in_the_digest(net, tiny, digits, rules):
    last = {group.name: range(group.channels) for group in tiny.groups}
    own = game(net, tiny, digits, 0.4, importance=last, **QUICK)
    assert own.l1.tolist() == [i for group in tiny.groups for i in range(group.channels)]
    assert own.digest != rules.digest
    assert own.never_empty(torch.zeros(1, 7, dtype=torch.bool))[0].nonzero().flatten().tolist() == [3, 6]


def test_a_game_prints_on_a_line(rules):
    assert repr(rules) == "Game(TinyCNN: 7 channels in 2 groups, 2 decisions, at most 40.0% of the macs)"


def test_few_training_images_are_all_calibrated_on(net, tiny, digits):
    few = replace(digits, train=digits.train.take(torch.arange(20)))
    by_default, told = (game(net, tiny, few, 0.4, images=40, **asked) for asked in ({}, {"calibration": 20}))
    kept = torch.ones(1, 7, dtype=torch.bool)
    assert torch.equal(by_default.evaluator(kept).loss, told.evaluator(kept).loss)
    with pytest.raises(ValueError, match=r"calibration=21: .* 2 to 20"):
        game(net, tiny, few, 0.4, images=40, calibration=21)


def test_text_is_no_share(net, tiny, digits):
    with pytest.raises(TypeError, match=r"share='0\.5': must be a number, got str; e\.g\. 0\.5 for half of the cost"):
        game(net, tiny, digits, "0.5")
