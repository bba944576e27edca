"""`prune_weights`: the number kept is exact, each reading keeps what it says, wrong arguments are told by name."""

import pytest
import torch
from torch import nn

from graphprune import data, models, spectral
from graphprune.pruning import weight_masks

RULES = ["resistance", "degree", "adjacency", "paths"]


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device="cpu")


@pytest.fixture(scope="module")
def net():
    return models.seeded("tiny_cnn", 0, in_channels=1)


def linear(*rows):
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


@pytest.mark.parametrize("conv", ["unrolled", "channels"])
@pytest.mark.parametrize("budget", ["global", "layer", "er"])
@pytest.mark.parametrize("pick", ["top", "sample"])
@pytest.mark.parametrize("rule", RULES)
def test_realised_sparsity_is_exact(net, digits, rule, pick, budget, conv):
    for sparsity in (0.0, 0.5, 0.9, 0.99):
        mask = spectral.prune_weights(net, digits, sparsity, rule=rule, pick=pick, budget=budget, conv=conv)
        weight_masks.check(net, mask)
        assert weight_masks.count(mask).kept == round((1 - sparsity) * 318)


@pytest.mark.parametrize("budget", ["global", "layer", "er"])
def test_node_rule_is_exact_too(net, budget):
    mask = spectral.prune_weights(net, None, 0.8, rule="node", pick="sample", budget=budget)
    assert weight_masks.count(mask).kept == 64


def test_top_keeps_bridges_before_heavier_edges_of_a_ring():
    """Leverages: ring 2/3 and 5/6, bridge 1 and lone edge 1, though 0.01 is the smallest weight of all."""
    layer = linear([1.0, 2.0, 0.0], [1.0, 2.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.01])
    mask = spectral.prune_weights(layer, None, 10 / 12)["weight"]
    assert mask.nonzero().tolist() == [[2, 1], [3, 2]]
    by_size = spectral.prune_weights(layer, None, 8 / 12)["weight"]
    assert by_size.nonzero().tolist() == [[0, 1], [1, 1], [2, 1], [3, 2]]


def test_sampling_global_hands_each_layer_its_nodes_less_one(net):
    """No chance is capped at 99 %, so that a layer's expected number is in proportion to nodes - components."""
    chances = spectral.keep_chances(net, None, 0.99)
    nodes = {name: len(weight) + weight[0].numel() - 1 for name, weight in weight_masks.prunable(net).items()}
    assert max(float(p.max()) for p in chances.values()) < 1
    for name, p in chances.items():
        assert float(p.sum()) == pytest.approx(3 * nodes[name] / sum(nodes.values()))


def test_same_seed_same_draw_and_the_model_stays(net):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    first, again, other = (spectral.prune_weights(net, None, 0.9, pick="sample", seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_reweighted_draws_are_right_on_average():
    layer = linear([1.0, -2.0, 0.5], [3.0, 0.2, 1.0])
    chances = spectral.keep_chances(layer, None, 0.5)
    total = torch.zeros(2, 3)
    for seed in range(2000):
        mask = spectral.prune_weights(layer, None, 0.5, pick="sample", seed=seed)
        total += spectral.reweight(layer, mask, chances).weight.detach()
    torch.testing.assert_close(total / 2000, layer.weight.detach(), rtol=0.15, atol=0.03)


def test_reweighting_by_other_chances_is_refused():
    layer = linear([1.0, 0.0])
    with pytest.raises(ValueError, match="keeps a weight whose chance is 0"):
        spectral.reweight(layer, {"weight": torch.tensor([[True, True]])}, {"weight": torch.tensor([[1.0, 0.0]])})


@pytest.mark.parametrize("chances", [{}, {"weight": torch.ones(2)}])
def test_reweighting_needs_the_chances_of_every_layer_of_the_mask(chances):
    mask = {"weight": torch.tensor([[True, True]])}
    with pytest.raises(
        ValueError, match=r"chances: 'weight' needs one for each weight, \(1, 2\); give what keep_chances returned"
    ):
        spectral.reweight(linear([1.0, 1.0]), mask, chances)


@pytest.mark.parametrize("pick", ["top", "sample"])
def test_text_is_no_sparsity(net, pick):
    with pytest.raises(TypeError, match=r"sparsity='0\.5': must be a number, got str; e\.g\. 0\.9"):
        spectral.prune_weights(net, None, "0.5", pick=pick)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sparsity": 1.0}, "sparsity=1.0: must be at least 0 and below 1"),
        ({"sparsity": -0.1}, "sparsity=-0.1"),
        ({"sparsity": 0.9999}, "keeps none of 318 weights"),
        ({"rule": "laplace"}, "rule='laplace' is unknown: use 'resistance', 'degree'"),
        ({"budget": "equal"}, "budget='equal' is unknown: use 'layer', 'er' or 'global'"),
        ({"pick": "best"}, "pick='best' is unknown: use 'top' or 'sample'"),
        ({"conv": "flat"}, "conv='flat' is unknown"),
        ({"rule": "node"}, "it is a rule to sample by"),
        ({"rule": "node", "pick": "sample", "conv": "channels"}, "takes no parallel edges"),
        ({"rule": "paths"}, "data=None: the rule 'paths' needs the shape of an input"),
    ],
)
def test_wrong_arguments_are_named(net, wrong, message):
    with pytest.raises(ValueError, match=message):
        spectral.prune_weights(net, None, **({"sparsity": 0.9} | wrong))


def test_layers_that_are_not_supported_are_named():
    with pytest.raises(ValueError, match="layer '0' is a transposed convolution"):
        spectral.prune_weights(nn.Sequential(nn.ConvTranspose2d(1, 2, 3)), None, 0.5)
    with pytest.raises(ValueError, match="no convolution and no linear layer"):
        spectral.prune_weights(nn.ReLU(), None, 0.5)
    broken = linear([1.0, torch.nan])
    with pytest.raises(ValueError, match="weight: weight: it has entries that are not finite"):
        spectral.prune_weights(broken, None, 0.5)
