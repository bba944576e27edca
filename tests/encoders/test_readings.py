"""The joint denominator and the negative of random rates."""

import math

import pytest
import torch

import graphprune
from graphprune import contrast
from graphprune.encoders import readings
from graphprune.pruning import masks
from graphprune.pruning.rates import RATES

NET = graphprune.models.tiny_cnn()
GRAPH = graphprune.trace(NET, torch.zeros(1, 1, 8, 8))
SCORES = graphprune.importance.l1(NET, GRAPH)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_joint_loss_by_hand():
    # Anchors at 0 and 90 degrees, positives on them, negatives opposite; temperature 1: cosines 1 and 0, -1 and 0.
    z, far = unit(0, 90), unit(180, 270)
    total = math.log(math.e + 1 + 1 / math.e + 1)
    assert readings.loss_joint(z, z, far, 1.0).item() == pytest.approx((total - 1) + (total + 1), abs=1e-6)


def test_joint_loss_attracts_the_own_negative():
    z, negative = unit(0, 90), unit(60, 150).requires_grad_()
    readings.loss_joint(z, z, negative, 1.0).backward()
    moved = (negative - 0.1 * negative.grad).detach()
    own = torch.nn.functional.cosine_similarity
    assert own(z, moved)[0] > own(z, negative.detach())[0]


def test_with_one_anchor_the_joint_loss_is_least_where_all_are_equal():
    anchor, equal = unit(0, 0, 0), unit(60, 60, 60)
    least = 2 * math.log(6)
    assert readings.loss_joint(anchor, equal, equal, 0.5).item() == pytest.approx(least, abs=1e-6)
    assert readings.loss_joint(anchor, equal, unit(60, 60, 50), 0.5).item() > least + 1e-4


def test_joint_loss_survives_low_temperatures():
    z = [torch.randn(6, 4, generator=generator(i)) for i in range(3)]
    assert math.isfinite(readings.loss_joint(*z, 1e-3).item())


@pytest.mark.parametrize("triads", [contrast.anchor_unpruned, contrast.anchor_l1, contrast.anchor_first])
def test_random_rates_leave_anchor_and_positive_alone(triads):
    indices = torch.randint(10, (50, len(GRAPH.groups)), generator=generator())
    made = readings.random_rates(GRAPH, indices, SCORES, generator(), triads=triads)
    given = triads(GRAPH, indices, SCORES, generator())
    assert torch.equal(made.anchor, given.anchor)
    assert torch.equal(made.positive, given.positive)


def test_random_rates_keep_other_numbers_of_channels():
    indices = torch.zeros(2000, len(GRAPH.groups), dtype=torch.long)
    made = readings.random_rates(GRAPH, indices, SCORES, generator())
    first = next(iter(GRAPH.slices.values()))
    kept = made.negative[:, first].sum(1)
    possible = masks.kept_masks(GRAPH, torch.arange(10)[:, None].expand(-1, len(GRAPH.groups)), SCORES, RATES)[:, first].sum(1)
    assert set(kept.tolist()) == set(possible.tolist())
    assert kept.float().mean().item() == pytest.approx(possible.float().mean().item(), abs=0.2)
