"""Masks by size: against a sort by hand, the suite's own magnitude masks, and what training leaves of the zeros."""

import pytest
import torch
from torch import nn

from graphprune.compression import graph_data, networks, recipes, training
from graphprune.compression.weight_pruning import prune_each, prune_globally, tune
from graphprune.pruning import weight_baselines, weight_masks

KARATE = graph_data.load("karate")
RECIPE = recipes.find("karate", "gcn")


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return networks.build("gcn", KARATE, RECIPE, seed=0)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.99])
def test_global_masks_are_those_of_the_suites_magnitude(net: nn.Module, sparsity: float) -> None:
    found, wanted = prune_globally(net, sparsity), weight_baselines.magnitude(net, None, sparsity)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert weight_masks.count(found).kept == round((1 - sparsity) * (34 * 16 + 16 * 2))


def test_each_tensor_loses_the_same_share_and_keeps_one_weight(net: nn.Module) -> None:
    counts = {name: int(mask.sum()) for name, mask in prune_each(net, 0.75).items()}
    assert counts == {"layers.0.lin.weight": 136, "layers.1.lin.weight": 8}
    assert min(int(mask.sum()) for mask in prune_each(net, 0.998).values()) == 1


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_a_sparsity_out_of_range_is_refused(net: nn.Module, sparsity: float) -> None:
    for way in (prune_each, prune_globally):
        with pytest.raises(ValueError, match="sparsity="):
            way(net, sparsity)


def test_a_sparsity_that_leaves_nothing_is_refused(net: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"sparsity=0.9999 keeps none of 576 weights"):
        prune_globally(net, 0.9999)


@pytest.mark.parametrize("model", ["gcn", "gin", "gat", "sage"])
def test_pruned_weights_stay_zero_through_training_and_the_input_stays_whole(model: str) -> None:
    recipe = recipes.find("karate", model)
    whole = networks.build(model, KARATE, recipe, seed=0)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    mask = prune_globally(whole, 0.8)
    small, history = tune(whole, mask, KARATE, recipe, seed=0)
    weights = weight_masks.prunable(small)
    assert all(bool((weights[name][~kept] == 0).all()) for name, kept in mask.items())
    assert any(not torch.equal(weights[name][kept], before[name][kept]) for name, kept in mask.items())
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())
    assert len(history) == recipe.tune_epochs


def test_the_control_is_the_dense_network_with_the_same_training(net: nn.Module) -> None:
    control, _ = tune(net, {}, KARATE, RECIPE, seed=3)
    by_hand = networks.build("gcn", KARATE, RECIPE, seed=0)
    training.fit(by_hand, KARATE, RECIPE.tuning(), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(control.parameters(), by_hand.parameters(), strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused_by_name(bad: float) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[1].weight.data[0, 0] = bad
    for way in (prune_each, prune_globally):
        with pytest.raises(ValueError, match=r"its parameter '1\.weight' holds 1 NaN or infinite values of 8"):
            way(net, 0.5)
