"""Baselines on single weights, their budgets and the sums over paths: by hand, by enumeration, by finite differences."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphprune import data, models
from graphprune.pruning import weight_baselines, weight_masks
from graphprune.pruning.weight_paths import flow


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device="cpu")


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["random", "magnitude", "snip", "grasp", "synflow"])
def test_realised_sparsity_is_exact(digits, name, sparsity):
    net = models.seeded("tiny_cnn", 0, in_channels=1)
    mask = getattr(weight_baselines, name)(net, digits, sparsity)
    weight_masks.check(net, mask)
    assert weight_masks.count(mask).kept == round((1 - sparsity) * 318)


def test_magnitude_and_random_by_hand():
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, -5.0, 2.0]])
    assert weight_baselines.magnitude(layer, None, 1 / 3)["weight"].tolist() == [[False, True, True]]
    seen = sum(weight_baselines.random(layer, None, 2 / 3, seed=seed)["weight"].double() for seed in range(600)) / 600
    assert float((seen - 1 / 3).abs().max()) < 0.08


class Batch:
    """Two fixed examples that stand in for a data set."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    @property
    def train(self):
        return self

    def batches(self, *_, **__):
        yield self.x, self.y


def test_snip_and_grasp_agree_with_finite_differences():
    """|w dL/dw| and w (H g), each weight moved by hand in float64."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Tanh(), nn.Linear(2, 2, bias=False)).double()
    given = Batch(torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1]))
    weights = weight_masks.prunable(net)

    def gradients(temperature):
        loss = F.cross_entropy(net(given.x) / temperature, given.y)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(weights.values()))])

    flat = torch.cat([w.detach().flatten() for w in weights.values()])
    snip = (flat * gradients(1.0)).abs()
    g, step = gradients(200.0), 1e-4
    shifted = []
    for sign in (1, -1):
        moved = (flat + sign * step * g / g.norm()).split([6, 4])
        for weight, value in zip(weights.values(), moved, strict=True):
            weight.data = value.reshape(weight.shape)
        shifted.append(gradients(200.0))
    for weight, value in zip(weights.values(), flat.split([6, 4]), strict=True):
        weight.data = value.reshape(weight.shape)
    grasp = flat * (shifted[0] - shifted[1]) / (2 * step) * g.norm()
    for name, score in (("snip", snip), ("grasp", grasp)):
        mask = getattr(weight_baselines, name)(net, given, 0.5)
        chosen = torch.cat([kept.flatten() for kept in mask.values()])
        assert sorted(chosen.nonzero()[:, 0].tolist()) == sorted(score.topk(5).indices.tolist()), name


def test_synflow_keeps_the_stronger_path():
    """3 flows through the second neuron, 2 through the first."""
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    net[0].weight.data, net[2].weight.data = torch.tensor([[2.0], [1.0]]), torch.tensor([[1.0, -3.0]])
    found = weight_baselines.synflow(net, Shape(1), 0.5)
    assert found["0.weight"].tolist() == [[False], [True]]
    assert found["2.weight"].tolist() == [[False, True]]


class Shape:
    """The shape of an input alone."""

    def __init__(self, *shape):
        self.shape = shape

    def example(self):
        return torch.zeros(1, *self.shape)


def test_synflow_keeps_paths_where_one_round_keeps_none():
    """Tanaka et al. 2020, theorem 3, on a chain of layers: as long as the budget holds a path, rounds leave one."""
    net = nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(16, 16, bias=False), nn.ReLU())], nn.Linear(16, 2))
    torch.manual_seed(0)
    for weight in weight_masks.prunable(net).values():
        nn.init.normal_(weight)
    whole = [
        flow(net, torch.zeros(1, 16), mask)
        for mask in (
            {name: kept.double() for name, kept in weight_baselines.synflow(net, Shape(16), 0.99, rounds=rounds).items()}
            for rounds in (100, 1)
        )
    ]
    assert [bool(found.outputs.sum() > 0) for found in whole] == [True, False]


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("random", {"budget": "equal"}, "budget='equal' is unknown"),
        ("snip", {"images": 0}, "images=0: must be at least 1"),
        ("grasp", {"images": -1}, "images=-1"),
        ("synflow", {"rounds": 0}, "rounds=0: must be at least 1"),
        ("magnitude", {"sparsity": 1}, "sparsity=1: must be at least 0 and below 1"),
    ],
)
def test_wrong_arguments_are_named(digits, name, wrong, message):
    net = models.seeded("tiny_cnn", 0, in_channels=1)
    with pytest.raises(ValueError, match=message):
        getattr(weight_baselines, name)(net, digits, **({"sparsity": 0.5} | wrong))
