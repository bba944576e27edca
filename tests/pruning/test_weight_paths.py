"""Sums over paths, against all paths written out."""

from itertools import product

import pytest
import torch
from torch import nn

from graphprune import models
from graphprune.pruning import weight_masks
from graphprune.pruning.weight_paths import flow
from graphprune.runs import runtime

runtime.import_pyg()
from torch_geometric.nn import dense  # noqa: E402


def test_flow_adds_up_all_paths():
    """Every path of a 3-4-2-3 network, one after the other."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3))
    values = {name: weight.detach().abs().double() for name, weight in weight_masks.prunable(net).items()}
    a, b, c = values.values()
    expected = {name: torch.zeros_like(value) for name, value in values.items()}
    for i, j, k, o in product(range(3), range(4), range(2), range(3)):
        strength = a[j, i] * b[k, j] * c[o, k]
        for name, place in zip(expected, [(j, i), (k, j), (o, k)], strict=True):
            expected[name][place] += strength
    found = flow(net, torch.zeros(1, 3), values)
    for name, value in expected.items():
        torch.testing.assert_close(found.weights[name], value)
        torch.testing.assert_close(found.neurons[name], value.sum(1))
    torch.testing.assert_close(found.inputs, expected["0.weight"].sum(0))
    torch.testing.assert_close(found.outputs, expected["4.weight"].sum(1))


def test_flow_leaves_the_network_alone_and_refuses_what_is_negative_or_too_large():
    net = models.seeded("tiny_cnn", 0, in_channels=1)
    values = {name: weight.detach().abs() for name, weight in weight_masks.prunable(net).items()}
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    flow(net, torch.zeros(1, 1, 8, 8), values)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    with pytest.raises(ValueError, match="negative"):
        flow(net, torch.zeros(1, 1, 8, 8), {name: -value for name, value in values.items()})
    with pytest.raises(ValueError, match="too large for a float64"):
        flow(net, torch.zeros(1, 1, 8, 8), {name: 1e200 * value.double() for name, value in values.items()})


def through_the_middle(layer: nn.Module) -> torch.Tensor:
    """Of 1 x 1 convolutions of ones, 1 -> 2 -> 1 channels, with a layer between: what flows through the first one's weights."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1), layer, nn.Conv2d(2, 1, 1))
    ones = {name: torch.ones_like(weight) for name, weight in weight_masks.prunable(net).items()}
    return flow(net, torch.zeros(1, 1, 4, 4), ones).weights["0.weight"].flatten()


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(2),
        nn.GroupNorm(1, 2),
        nn.InstanceNorm2d(2),
        nn.InstanceNorm2d(2, affine=True),
        nn.LayerNorm([2, 4, 4]),
        nn.RMSNorm(4),
        nn.LocalResponseNorm(2),
    ],
)
def test_every_normalisation_is_left_out(norm):
    assert through_the_middle(norm).tolist() == [16, 16]


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(2), nn.AdaptiveMaxPool2d((2, 2))])
def test_every_largest_is_a_mean_so_that_all_places_count(pool):
    """Four means of four places: each place has a quarter of a path, 16 places four."""
    assert through_the_middle(pool).tolist() == [4, 4]
    net = nn.Sequential(nn.Conv2d(1, 1, 1), pool)
    assert flow(net, torch.zeros(1, 1, 4, 4), {"0.weight": torch.ones(1, 1, 1, 1)}).inputs.unique().tolist() == [0.25]


def test_pooling_of_rows_and_of_volumes_is_averaged_too():
    for net, shape in (
        (nn.Sequential(nn.Conv1d(1, 1, 1), nn.MaxPool1d(2)), (1, 1, 4)),
        (nn.Sequential(nn.Conv3d(1, 1, 1), nn.AdaptiveMaxPool3d(1)), (1, 1, 2, 1, 1)),
    ):
        ones = {"0.weight": torch.ones_like(net[0].weight)}
        assert flow(net, torch.zeros(shape), ones).inputs.unique().tolist() == [0.5]


def test_the_outputs_of_pygs_linear_layers_are_its_last_dimension():
    net = nn.Sequential(dense.Linear(2, 3))
    found = flow(net, torch.zeros(1, 2), {"0.weight": torch.tensor([[1.0, 0.0], [2.0, 3.0], [0.0, 0.0]])})
    assert found.neurons["0.weight"].tolist() == [1, 5, 0]


def test_an_attention_is_refused():
    net = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))
    ones = {name: torch.ones_like(weight) for name, weight in weight_masks.prunable(net).items()}
    with pytest.raises(
        ValueError, match=r"layer '0\.self_attn' is an attention.* use a rule without paths, e\.g\. 'resistance'"
    ):
        flow(net, torch.zeros(1, 5, 4), ones)
