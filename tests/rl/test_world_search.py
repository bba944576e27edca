"""Climbing in look-ups: evaluations are counted, no mask is judged twice, and with all judged the optimum is found."""

import pytest
import torch
from tiny_world import by_hand

from graphprune.rl.world_search import climb, top, uniform


def generator():
    return torch.Generator().manual_seed(0)


def test_top_takes_the_largest_sum_of_those_allowed():
    here = by_hand([0.0] * 16)
    found = top(torch.tensor([[1.0, 2.0, 5.0, 4.0]]), here.allowed(2), here.masks)
    assert found.tolist() == [0b0110]


def test_uniform_draws_every_allowed_mask_alike():
    allowed = by_hand([0.0] * 16).allowed(2).expand(4000, -1)
    counts = uniform(allowed, generator()).bincount(minlength=16)
    assert counts.nonzero().flatten().tolist() == [5, 6, 9, 10]
    assert counts[[5, 6, 9, 10]].min() > 900


def test_a_climb_goes_uphill_by_hand():
    # From 0101 (.2) one swap leads to 0110 (.4) and 1001 (.3); 1010 (.9) is a neighbour of both.
    scores = [0.0] * 16
    scores[0b0101], scores[0b0110], scores[0b1001], scores[0b1010] = 0.2, 0.4, 0.3, 0.9
    here = by_hand(scores)
    curve = climb(here, torch.tensor([0b0101]), here.allowed(2), 6, generator())[0]
    assert curve[0].item() == pytest.approx(70)
    assert curve[1].item() in (pytest.approx(50), pytest.approx(60))
    assert curve[3:].tolist() == [0, 0, 0], "four masks there are, and all were judged"
    assert (curve.diff() <= 0).all()


def test_one_evaluation_is_the_start():
    here = by_hand([i / 16 for i in range(16)])
    assert climb(here, torch.tensor([0b1010]), here.allowed(2), 1, generator()).tolist() == [[0.0]]
    with pytest.raises(ValueError, match="evaluations"):
        climb(here, torch.tensor([0b1010]), here.allowed(2), 0, generator())
