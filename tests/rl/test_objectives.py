"""Teachers and free bits: the gradients point where they should, and the budget is missed only where bits are free."""

import pytest
import torch
from tiny_world import by_hand

from graphprune.rl.objectives import Free, Regress, imitate
from graphprune.rl.policy import Settings

ROW = torch.tensor([0])


def gradient(objective, world, allowed, scores=None):
    scores = (torch.zeros(1, 4) if scores is None else scores).requires_grad_()
    objective(world, ROW, ROW, allowed, scores, torch.Generator().manual_seed(0)).backward()
    return scores.grad[0]


@pytest.fixture
def here():
    scores = [0.0] * 16
    scores[0b1010] = 1.0
    return by_hand(scores)


def test_imitation_raises_the_chance_of_the_best_mask_by_hand(here):
    # Four masks, one of either group; each bit's chance is a half, and the best has bits 1 and 3.
    assert gradient(imitate, here, here.allowed(2)).tolist() == pytest.approx([0.5, -0.5, 0.5, -0.5])


def test_regression_raises_the_channels_of_better_masks(here):
    found = gradient(Regress(64), here, here.allowed(2))
    assert (found[[0, 2]] > 0).all()
    assert (found[[1, 3]] < 0).all()


def test_free_bits_miss_the_budget_and_say_how_often(here):
    free = Free(Settings(evaluations=512, episodes=512), torch.tensor([0.5]), 1)
    gradient(free, here, here.allowed(2))
    over = (here.macs[0] > 0.5).float().mean().item()  # all masks alike
    assert free.over == [pytest.approx(over, abs=0.07)]


@pytest.mark.parametrize("multiplier", [None, 5.0])
def test_over_the_budget_the_dearest_channels_are_pushed_down(here, multiplier):
    free = Free(Settings(evaluations=512, episodes=512), torch.tensor([0.1]), 1, multiplier)
    found = gradient(free, here, here.allowed(2))
    assert found[0] > found[3]  # it costs .4, the other .1
    assert found[0] > 0


def test_the_price_rises_while_the_budget_is_missed_and_never_below_nothing(here):
    tight = Free(Settings(evaluations=64, episodes=64), torch.tensor([0.1]), 1, 1.0)
    loose = Free(Settings(evaluations=64, episodes=64), torch.tensor([1.0]), 1, 0.1, step=9.0)
    for free in (tight, loose):
        gradient(free, here, here.allowed(2))
    assert tight.price.item() == pytest.approx(1.4, abs=0.1)  # half of the cost is kept: .4 too much
    assert loose.price.item() == 0
