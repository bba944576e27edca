"""Searches that learn nothing: all masks of a tiny network tried one by one are the oracle."""

import itertools
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from graphprune import data, models, train
from graphprune.environment import game
from graphprune.pruning.budget import Budget
from graphprune.pruning.evaluator import Performance
from graphprune.rl.mask_search import best_of, climb_from_ratios, free_climbing, hill_climbing, random_masks, random_ratios
from graphprune.runs import runtime
from graphprune.train import Recipe

SEARCHES = {"random": random_masks, "hill climbing": hill_climbing, "random ratios": random_ratios}


@dataclass
class Watched:
    """An evaluator that remembers what it was asked."""

    inner: object
    asked: list = field(default_factory=list)

    def __call__(self, kept: Tensor) -> Performance:
        self.asked += kept.clone()
        return self.inner(kept)


@pytest.fixture(scope="module")
def rules(tiny):
    digits = data.load("digits", device="cpu")
    model = models.seeded("tiny_cnn", 0, in_channels=1)
    train.fit(model, digits, Recipe(epochs=2, lr=0.1, batch_size=64), seed=0, device="cpu")
    return game(model, tiny, digits, 0.5, images=60, calibration=32)


def watched(rules, inner=None, **changes):
    seen = Watched(inner or rules.evaluator)
    return replace(rules, evaluator=seen, **changes), seen.asked


def scores(rules, masks):
    """[(accuracy, -loss)], each mask by itself."""
    found = [rules.evaluator(mask[None]) for mask in masks]
    return [(one.accuracy.item(), -one.loss.item()) for one in found]


def at_the_budget(rules):
    """Every mask within the budget, with a channel in each group, that with some channel more would miss it."""
    found = []
    for bits in itertools.product([False, True], repeat=7):
        mask = torch.tensor(bits)
        if not (mask[:4].any() and mask[4:].any()) or float(rules.excess(mask[None])) > 0:
            continue
        more = (mask | torch.eye(7, dtype=torch.bool))[~mask]
        if bool((rules.excess(more) > 0).any()):
            found.append(mask)
    return found


def test_the_best_by_accuracy_then_by_loss(rules):
    masks = torch.stack(at_the_budget(rules))
    assert len(masks) > 20
    expected = scores(rules, masks)
    accuracies = [accuracy for accuracy, _ in expected]
    assert len(set(accuracies)) > 5  # masks matter
    found = best_of(rules, masks)
    place = expected.index(max(expected))
    assert torch.equal(found.kept, masks[place])
    assert found.performance == accuracies[place]
    assert found.curve.tolist() == list(itertools.accumulate(accuracies, max))


def test_of_equal_accuracies_the_lower_loss_is_the_better(rules):
    masks = torch.stack(at_the_budget(rules)[:4])
    losses = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    accuracies = torch.tensor([0.5, 0.9, 0.9, 0.8], dtype=torch.float64)
    other, _ = watched(rules, lambda kept: Performance(accuracies, losses))
    assert torch.equal(best_of(other, masks).kept, masks[2])


def test_random_masks_are_drawn_as_said_and_the_best_is_kept(rules):
    other, asked = watched(rules)
    found = random_masks(other, 30, seed=5)
    draw = torch.rand(30, 7, generator=runtime.seed_generator(5, "random masks"))
    assert torch.equal(torch.stack(asked), rules.budget.fit(draw))
    expected = scores(rules, asked)
    assert torch.equal(found.kept, asked[expected.index(max(expected))])
    assert found.curve.tolist() == list(itertools.accumulate((accuracy for accuracy, _ in expected), max))


def test_random_masks_are_all_sorts(rules):
    other, asked = watched(rules)
    random_masks(other, 400, seed=0)
    assert {tuple(mask.tolist()) for mask in asked} == {tuple(mask.tolist()) for mask in at_the_budget(rules)}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize(("share", "of"), [(0.1, "macs"), (0.5, "macs"), (0.9, "macs"), (0.4, "params")])
def test_a_search_evaluates_so_many_masks_all_at_the_budget(rules, name, share, of):
    other, asked = watched(rules, budget=Budget(rules.budget.costs, share, of))
    found = SEARCHES[name](other, 12, seed=1)
    assert len(asked) == len(found.curve) == 12
    allowed = {tuple(mask.tolist()) for mask in at_the_budget(other)}
    assert {tuple(mask.tolist()) for mask in asked} <= allowed
    assert tuple(found.kept.tolist()) in allowed
    assert found.curve.dtype == torch.float64


@pytest.mark.parametrize("name", SEARCHES)
def test_the_curve_never_falls_and_ends_at_the_result(rules, name):
    other, asked = watched(rules)
    found = SEARCHES[name](other, 40, seed=2)
    expected = scores(rules, asked)
    assert found.curve.tolist() == list(itertools.accumulate((accuracy for accuracy, _ in expected), max))
    assert found.performance == found.curve[-1]
    assert scores(rules, [found.kept])[0] == max(expected)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_seed_gives_one_result(rules, name):
    same = [SEARCHES[name](rules, 10, seed=3) for _ in range(2)]
    assert torch.equal(same[0].kept, same[1].kept)
    assert torch.equal(same[0].curve, same[1].curve)
    assert not torch.equal(same[0].curve, SEARCHES[name](rules, 10, seed=4).curve)


@pytest.mark.parametrize("seed", [0, 1])
def test_given_time_a_search_finds_the_optimum(rules, seed):
    masks = at_the_budget(rules)
    expected = scores(rules, masks)
    best = masks[expected.index(max(expected))]
    table = {tuple(mask.tolist()): one for mask, one in zip(masks, expected, strict=True)}

    def known(kept):
        rows = torch.tensor([table[tuple(mask.tolist())] for mask in kept], dtype=torch.float64)
        return Performance(rows[:, 0], -rows[:, 1])

    other, _ = watched(rules, known)
    assert torch.equal(hill_climbing(other, 300, seed).kept, best)
    assert torch.equal(random_masks(other, 300, seed).kept, best)


def test_hill_climbing_goes_on_from_the_best_and_changes_little(resnet8):
    """On 224 channels of a known worth: few change at a time, and it ends well above the best of as many random masks."""
    model = models.seeded("resnet8", 0, in_channels=1)
    rules = game(model, resnet8, data.load("digits", device="cpu"), 0.5, images=10, calibration=8)
    worth = torch.rand(resnet8.num_atoms, generator=torch.Generator().manual_seed(0)).double()

    def counted(kept):
        accuracy = (kept * worth).sum(1) / kept.sum(1)
        return Performance(accuracy, 1 - accuracy)

    other, asked = watched(rules, counted)
    found = hill_climbing(other, 300, seed=0)
    here, changes = asked[0], []
    for mask in asked[1:]:
        changes.append(int((mask ^ here).sum()))
        here = mask if float(counted(mask[None]).accuracy) >= float(counted(here[None]).accuracy) else here
    assert torch.equal(here, found.kept)
    assert min(changes) > 0  # what a flip takes away stays away
    assert sum(changes) / len(changes) < 12
    assert found.performance > random_masks(other, 300, seed=0).performance + 0.03


def test_a_mask_over_the_budget_is_refused(rules):
    masks = torch.stack([at_the_budget(rules)[0], torch.ones(7, dtype=torch.bool)])
    with pytest.raises(ValueError, match=r"kept: a mask costs more than share=0\.5 of the macs; see Budget\.fit"):
        best_of(rules, masks)
    with pytest.raises(ValueError, match="kept: has no mask; give at least 1"):
        best_of(rules, masks[:0])


@pytest.mark.parametrize("name", SEARCHES)
def test_no_evaluation_is_refused(rules, name):
    with pytest.raises(ValueError, match="evaluations=0: must be at least 1"):
        SEARCHES[name](rules, 0, seed=0)


def test_random_ratios_keep_the_largest_norms_of_every_group(rules):
    seen, asked = watched(rules)
    random_ratios(seen, 20, seed=0)
    for mask in asked:
        for span in rules.graph.slices.values():
            kept, dropped = rules.l1[span][mask[span]], rules.l1[span][~mask[span]]
            assert not len(dropped) or kept.min() >= dropped.max()
    assert len({tuple(mask.tolist()) for mask in asked}) == 3, "all that the budget has room for"


def test_a_climb_begins_where_it_is_told_to(rules):
    start = rules.budget.fit(rules.l1[None].double())[0]
    seen, asked = watched(rules)
    found = hill_climbing(seen, 4, seed=0, start=start)
    assert torch.equal(asked[0], start)
    assert len(asked) == 4
    assert found.curve[0].item() == rules.evaluator(start[None]).accuracy.item()
    with pytest.raises(ValueError, match=r"start: costs more than share=0\.5 of the macs"):
        hill_climbing(rules, 4, seed=0, start=torch.ones(7, dtype=torch.bool))


def test_a_climb_from_ratios_goes_on_from_the_best_of_the_first_draws(rules):
    seen, asked = watched(rules)
    found = climb_from_ratios(seen, 12, seed=0, draws=5)
    first = random_ratios(rules, 5, seed=0)
    assert found.curve[:5].tolist() == first.curve.tolist()
    assert torch.equal(asked[5], first.kept), "judged once more, and not counted"
    assert len(found.curve) == 12
    assert found.performance >= first.performance
    assert climb_from_ratios(rules, 3, seed=0, draws=5).curve.tolist() == first.curve[:3].tolist()


def test_a_free_climb_begins_at_the_whole_network_and_comes_within_the_budget_by_itself(rules):
    seen, asked = watched(rules)
    found = free_climbing(seen, 80, seed=0)
    assert bool(asked[0].all())
    assert len(asked) == len(found.curve) == 80
    assert found.curve[0] == 0
    assert float(rules.excess(found.kept[None])) <= 0
    assert found.curve[-1].item() == rules.evaluator(found.kept[None]).accuracy.item()
    over = [mask for mask in asked if float(rules.excess(mask[None])) > 0]
    assert 0 < len(over) < 80, "nothing puts a mask right"
    within = [rules.evaluator(mask[None]).accuracy.item() for mask in asked if float(rules.excess(mask[None])) <= 0]
    assert found.performance == max(within)


def test_a_free_climb_that_never_meets_the_budget_says_so(rules):
    found = free_climbing(rules, 1, seed=0)
    assert found.performance == 0
    assert found.curve.tolist() == [0]
