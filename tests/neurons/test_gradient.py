"""Projected gradient descent: never above its start, clipped, the same for the same seed, near the optimum."""

import pytest
import torch
from tiny_programs import Parts, fc, images

from graphprune.neurons import gradient


@pytest.mark.parametrize("seed", range(4))
def test_descent_comes_near_the_proven_optimum(seed):
    parts = Parts(fc(seed, 2, 3, 2, 2), images(seed, 2, 2), torch.tensor([0, 1]), "exact", 2.0, 0.0)
    s, value = gradient.descend(parts.chain, parts.bounds, parts.x, parts.y, 2.0)
    solved = parts.solve()
    assert value == pytest.approx(parts.objective(s))
    assert all(bool(((part >= 0) & (part <= 1)).all()) for part in s)
    assert solved.bound - 1e-6 <= value <= solved.objective + 0.05


def test_descent_is_the_same_again_and_stops_in_time():
    parts = Parts(fc(9, 2, 3, 2), images(9, 2, 2), torch.tensor([0, 1]), "exact", 2.0, 0.0)
    about = (parts.chain, parts.bounds, parts.x, parts.y, 2.0)
    assert torch.equal(gradient.descend(*about, seed=3)[0][0], gradient.descend(*about, seed=3)[0][0])
    s, value = gradient.descend(*about, time_limit=0.0)
    assert value <= parts.objective([torch.ones(3).double()])
    assert len(s) == 1
