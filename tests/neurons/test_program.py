"""The whole program: its optimum against every pattern of gates, and its points against runs of the network."""

import numpy as np
import pytest
import torch
from tiny_programs import Parts, conv, fc, images
from torch import nn

from graphprune.neurons import cuts, program, replay

Y = torch.tensor([0, 1])


def broken(parts: Parts, point: np.ndarray) -> float:
    """By how much a point breaks the rows and the columns' bounds."""
    rows = parts.program.rows
    sides, (lower, upper, _, _), value = rows.sides(), rows.bounds(), rows.matrix() @ point
    return max((sides[0] - value).max(), (value - sides[1]).max(), (lower - point).max(), (point - upper).max())


@pytest.mark.parametrize("which", ["exact", "published"])
@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_is_the_best_of_all_patterns_of_gates(seed, which):
    radii = [0.0] if which == "exact" else [1.0, 0.5, 0.2, 0.1, 0.05, 0.02]
    tried = (Parts(fc(seed, 2, 3, 2, 2), images(seed, 2, 2), Y, which, 2.0, radius) for radius in radii)
    parts = next(parts for parts in tried if 1 <= len(parts.program.whole) <= 6)
    found = parts.solve(feasible=which == "exact")
    assert found.status == "optimal"
    assert found.objective == pytest.approx(parts.enumerate(), abs=3e-3)


@pytest.mark.parametrize("pool", ["max", "average"])
@pytest.mark.parametrize("which", ["exact", "published"])
def test_all_scores_one_are_a_feasible_point_that_replays_the_network(which, pool):
    pooled = {"max": nn.MaxPool2d(2), "average": nn.AvgPool2d(2)}[pool]
    net, x = conv(4, pooled), images(4, 2, 1, 5, 5)
    parts = Parts(net, x, Y, which, 5.0, 1e-5 if which == "published" else 0.0)
    point = parts.start()[1]
    assert broken(parts, point) < 1e-9
    assert np.allclose(point[parts.program.z], net.double()(x.double()).detach().numpy(), atol=1e-12)


@pytest.mark.parametrize("net", [fc(5, 3, 4, 3, 2), conv(5, nn.MaxPool2d(2)), conv(6, nn.AvgPool2d(2))])
def test_every_score_is_a_feasible_point_of_the_exact_program(net):
    shape = (3,) if isinstance(net[0], nn.Linear) else (1, 5, 5)
    parts = Parts(net, images(5, 2, *shape), Y, "exact", 5.0, 0.1)
    draw = torch.Generator().manual_seed(0)
    for _ in range(5):
        s = [torch.rand(p.channels, generator=draw).double().round(decimals=1) for p in parts.chain.scored]
        point = program.point(parts.program, parts.chain, parts.bounds, parts.x, s)
        assert broken(parts, point) < 1e-9
        rows = parts.program.rows
        assert rows.bounds()[2] @ point + parts.program.offset == pytest.approx(parts.objective(s))


def test_the_loss_of_a_point_is_the_cross_entropy():
    parts = Parts(fc(6, 2, 3, 2), images(6, 2, 2), Y, "exact", 5.0, 0.0)
    point = parts.start()[1]
    z = torch.from_numpy(point[parts.program.z])
    assert np.allclose(point[parts.program.t], nn.functional.cross_entropy(z, Y, reduction="none"))
    assert np.allclose(point[parts.program.t], cuts.losses(z.numpy(), Y.numpy()))
    assert np.allclose(point[parts.program.e].sum(1), 1)
    assert replay.ones(parts.chain)[0].tolist() == [1, 1, 1]
