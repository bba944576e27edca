"""Interval bounds hold for every score and every image of the box."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_programs import conv, fc, images
from torch import nn

from graphprune.neurons import bounds, read, replay

NETS = [(fc(0, 2, 3, 4, 2), (2,)), (conv(0, nn.MaxPool2d(2)), (1, 5, 5)), (conv(1, nn.AvgPool2d(2)), (1, 5, 5))]
NETS += [
    (
        nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.MaxPool2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)
        ),
        (1, 5, 5),
    )
]


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, len(NETS) - 1), seed=st.integers(0, 10**6), radius=st.sampled_from([0.0, 1e-3, 0.5]))
def test_exact_bounds_hold_for_every_score(place, seed, radius):
    net, shape = NETS[place]
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, *shape, generator=draw).double()
    chain = read(net, x)
    found = bounds.propagate(chain, x, radius, "exact")
    s = [torch.rand(p.channels, generator=draw).double() * (torch.rand(p.channels, generator=draw) > 0.3) for p in chain.scored]
    moved = x + radius * (2 * torch.rand(x.shape, generator=draw).double() - 1)
    values = replay.values(chain, found, moved, s)
    for value, (low, high) in zip(values, [*found.inputs[1:], found.outputs], strict=True):
        assert bool((value >= low - 1e-9).all())
        assert bool((value <= high + 1e-9).all())


def test_bounds_by_hand():
    """h = x0 - 2 x1 at (1, 1) with radius 0.5: -1 +- 1.5."""
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    net[0].weight.data, net[2].weight.data = torch.tensor([[1.0, -2.0]]), torch.tensor([[-1.0]])
    x = torch.ones(1, 2).double()
    chain = read(net, x)
    found = bounds.propagate(chain, x, 0.5, "exact")
    assert [bound.item() for bound in found.inputs[1]] == [-2.5, 0.5]
    assert found.caps[1].item() == 0.5
    assert [bound.item() for bound in found.outputs] == [-0.5, 0.0]


def test_published_bounds_are_the_unpruned_networks():
    net, x = fc(3, 2, 3, 2), images(3, 4, 2).double()
    chain = read(net, x, "published")
    found = bounds.propagate(chain, x, 0.0, "published")
    for (low, high), value in zip(found.inputs[1:], replay.values(chain, found, x, replay.ones(chain)), strict=False):
        assert torch.equal(low, high)
        assert torch.allclose(low, value)


def test_a_layer_below_zero_is_shifted_up_by_the_published_program_alone():
    """Without a ReLU after it the authors' code has u, ours u+."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.AvgPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(1, 2))
    net[0].weight.data.fill_(1.0)
    net[0].bias.data.fill_(-3.0)
    x = torch.ones(1, 1, 2, 2).double()
    caps = {}
    for program in ("published", "exact"):
        caps[program] = bounds.propagate(read(net, x, program), x, 0.0, program).caps[1].unique().tolist()
    assert caps == {"published": pytest.approx([-2.0]), "exact": [0.0]}
